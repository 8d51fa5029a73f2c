/** The OpenAPI document tells each request that the API answers, and no other; what it says of settings is what is checked. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { PORT_KINDS } from '../../../switch/config/kinds/index.ts';
import { type ControlSource, controlApi } from '../../../switch/control/api.ts';

type Document = {
  readonly paths: Readonly<Record<string, Readonly<Record<string, object>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, { readonly properties?: Readonly<Record<string, unknown>> }>>;
  };
};

const API = controlApi({} as ControlSource, '1.2.3');
const DOCUMENT = (await (await API.request('/v1/openapi.json')).json()) as Document;
const DOCS = readFileSync(new URL('../../../docs/operating.md', import.meta.url), 'utf8');

const told = Object.entries(DOCUMENT.paths).flatMap(([path, methods]) =>
  Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
);

it('has each request once, and no other', () => {
  const answered = API.routes
    .filter(({ method }) => method !== 'ALL')
    .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
  expect(told.toSorted()).toEqual(answered.toSorted());
});

it('refers only to what it has', () => {
  const refs = [...JSON.stringify(DOCUMENT).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(
    ([, name]) => name,
  );
  expect(refs.length).toBeGreaterThan(20);
  for (const name of refs) expect(Object.keys(DOCUMENT.components.schemas)).toContain(name);
});

it('says what settings may be, from the schemas that check them', () => {
  const { schemas } = DOCUMENT.components;
  const { properties } = schemas['Port-vhost-user'];
  expect(properties?.queues).toEqual({ type: ['integer', 'string'], pattern: '^\\d{1,15}$' });
  expect(properties?.flood).toEqual({ enum: ['on', 'off', true, false] });
  expect(properties?.role).toMatchObject({ enum: ['server', 'client'], default: 'server' });
  for (const kind of PORT_KINDS) {
    expect(Object.keys(schemas[`Port-${kind}`].properties ?? {})).toContain('tag');
    expect(Object.keys(schemas[`PortChange-${kind}`].properties ?? {})).not.toContain('socket');
  }
});

it('is what the documentation tells', () => {
  const untold = Object.keys(DOCUMENT.paths).filter((path) => !DOCS.includes(path.split('/{')[0]));
  expect(untold).toEqual([]);
});
