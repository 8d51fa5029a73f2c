/**
 * The control API as an OpenAPI 3.1 document: a line for each request, and what settings may be from the schemas that check
 * them. Loaded when somebody asks for it. Main thread.
 */
import { z } from 'zod';
import { changeableFields, PORT_KINDS, settingsSchemaOf } from '../config/kinds/index.ts';
import { THIS_HOST } from '../config/kinds/values.ts';
import { configSchema } from '../config/schema.ts';
import { PROBLEM_TYPE } from './problem.ts';

type Method = 'get' | 'put' | 'post' | 'patch' | 'delete';

/** `body` and `answer`: names of schemas; left out: there is none, or any JSON. */
type Endpoint = {
  readonly method: Method;
  /** As OpenAPI has it: parameters in braces. */
  readonly path: string;
  readonly summary: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly answer?: string;
  /** Of success; 200 if left out. */
  readonly status?: 200 | 201;
  /** In place of JSON. */
  readonly type?: string;
  /** What else it may be answered with. */
  readonly refusals?: readonly number[];
};

const WHICH_VLAN = { vlan: 'a VLAN, 0 to 4095' };

const ENDPOINTS: readonly Endpoint[] = [
  { method: 'get', path: '/v1/version', summary: 'Version of Ringway and Node, process id' },
  { method: 'get', path: '/v1/openapi.json', summary: 'This document' },
  { method: 'get', path: '/v1/ports', summary: 'Every port' },
  { method: 'get', path: '/v1/ports/{name}', summary: 'One port', refusals: [404] },
  {
    ...{ method: 'put', path: '/v1/ports/{name}', summary: 'Adds a port' },
    ...{ body: 'Port', status: 201, refusals: [400, 409] },
  },
  {
    ...{ method: 'patch', path: '/v1/ports/{name}', summary: 'Changes settings of a port while it runs' },
    ...{ body: 'PortChange', refusals: [400, 404, 409] },
  },
  { method: 'delete', path: '/v1/ports/{name}', summary: 'Removes a port', refusals: [404, 409] },
  {
    method: 'get',
    path: '/v1/config',
    summary: 'What runs, as a configuration',
    answer: 'Configuration',
    refusals: [409],
  },
  {
    ...{
      method: 'post',
      path: '/v1/config',
      summary: 'Has the switch be as a configuration says, or tells what would be done',
    },
    ...{ body: 'Apply', refusals: [400, 409] },
  },
  { method: 'get', path: '/v1/totals', summary: 'Books of the whole switch' },
  { method: 'get', path: '/v1/workers', summary: 'Turns of the workers that found no frame' },
  { method: 'get', path: '/v1/figures', summary: 'Totals, and rates over 1, 10 and 60 seconds' },
  {
    method: 'get',
    path: '/metrics',
    summary: 'Figures for Prometheus',
    type: 'text/plain; version=0.0.4; charset=utf-8',
  },
  { method: 'get', path: '/v1/fdb', summary: 'The forwarding table' },
  {
    ...{ method: 'put', path: '/v1/fdb/{mac}', summary: 'Has an address stay behind a port' },
    ...{ body: 'NewAddress', status: 201, refusals: [400, 404, 409] },
  },
  {
    ...{ method: 'delete', path: '/v1/fdb/{mac}', summary: 'Forgets an address' },
    ...{ query: WHICH_VLAN, refusals: [400, 409] },
  },
  {
    ...{ method: 'post', path: '/v1/fdb/flush', summary: 'Forgets what was learned' },
    ...{ body: 'Flush', refusals: [400, 404, 409] },
  },
  { method: 'get', path: '/v1/mdb', summary: 'Members of groups, routers and queriers' },
  {
    ...{
      method: 'put',
      path: '/v1/mdb/{port}/{group}',
      summary: 'Has a port be a member of a group for good',
    },
    ...{ query: WHICH_VLAN, refusals: [400, 404, 409] },
  },
  {
    ...{ method: 'delete', path: '/v1/mdb/{port}/{group}', summary: 'Takes a member out' },
    ...{ query: WHICH_VLAN, refusals: [400, 404, 409] },
  },
  {
    ...{ method: 'delete', path: '/v1/mdb', summary: 'Forgets what was overheard' },
    ...{ query: { port: 'name of a port', ...WHICH_VLAN }, refusals: [400, 404, 409] },
  },
  { method: 'get', path: '/v1/plugins', summary: 'Every plugin' },
  {
    ...{ method: 'post', path: '/v1/plugins', summary: 'Reloads plugins' },
    ...{ body: 'Reload', refusals: [400, 404, 409] },
  },
  { method: 'get', path: '/v1/plugins/{name}/notes', summary: 'What a plugin has noted', refusals: [404] },
  {
    ...{ method: 'put', path: '/v1/plugins/{name}', summary: 'Adds a plugin' },
    ...{ body: 'Plugin', status: 201, refusals: [400, 409] },
  },
  { method: 'delete', path: '/v1/plugins/{name}', summary: 'Removes a plugin', refusals: [404, 409] },
  {
    ...{ method: 'post', path: '/v1/trace', summary: 'What would become of a frame' },
    ...{ body: 'Trace', refusals: [400, 404] },
  },
  { method: 'get', path: '/v1/captures', summary: 'The captures that run' },
  {
    ...{ method: 'post', path: '/v1/captures', summary: 'Begins a capture; the answer lasts as long as it' },
    ...{ type: 'application/x-pcapng', refusals: [400, 404, 409] },
  },
  { method: 'delete', path: '/v1/captures/{id}', summary: 'Ends a capture', refusals: [404] },
  {
    ...{ method: 'post', path: '/v1/takeover', summary: 'Hands the process over to another one' },
    ...{ body: 'Takeover', refusals: [400, 409] },
  },
];

/** `bodies`: schemas of request bodies that the API itself checks, by name. */
export function openApi(version: string, bodies: Readonly<Record<string, z.ZodType>>): object {
  const schemas: Record<string, object> = {
    Problem: {
      type: 'object',
      required: ['title', 'status', 'detail'],
      properties: {
        title: { type: 'string' },
        status: { type: 'integer' },
        detail: { type: 'string' },
        faults: { type: 'array', items: { type: 'object' } },
      },
    },
    Port: { anyOf: PORT_KINDS.map((kind) => ({ $ref: refOf(`Port-${kind}`) })) },
    PortChange: { anyOf: PORT_KINDS.map((kind) => ({ $ref: refOf(`PortChange-${kind}`) })) },
    Configuration: jsonSchemaOf(configSchema(THIS_HOST)),
  };
  for (const kind of PORT_KINDS) {
    schemas[`Port-${kind}`] = jsonSchemaOf(settingsSchemaOf(kind, THIS_HOST));
    const fields = Object.entries(changeableFields(kind)).map(([key, field]) => [key, z.nullable(field)]);
    schemas[`PortChange-${kind}`] = jsonSchemaOf(z.strictObject(Object.fromEntries(fields)).partial());
  }
  const { properties } = schemas.Configuration as {
    properties: Record<string, { additionalProperties: object }>;
  };
  properties.ports.additionalProperties = { $ref: refOf('Port') };
  schemas.Plugin = properties.plugins.additionalProperties;
  properties.plugins.additionalProperties = { $ref: refOf('Plugin') };
  for (const [name, schema] of Object.entries(bodies)) schemas[name] = jsonSchemaOf(schema);
  const paths: Record<string, Record<string, object>> = {};
  for (const endpoint of ENDPOINTS) {
    paths[endpoint.path] ??= {};
    paths[endpoint.path][endpoint.method] = operationOf(endpoint);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Ringway', version, description: 'HTTP on the control socket of a running switch.' },
    paths,
    components: { schemas },
  };
}

function operationOf({
  path,
  summary,
  query = {},
  body,
  answer,
  status = 200,
  type,
  refusals = [],
}: Endpoint): object {
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const inQuery = Object.entries(query).map(([name, description]) => ({
    name,
    in: 'query',
    description,
    schema: { type: 'string' },
  }));
  const json = (name: string | undefined): object => ({
    schema: name === undefined ? {} : { $ref: refOf(name) },
  });
  const responses: Record<string, object> = {
    [status]: {
      description: summary,
      content: { [type ?? 'application/json']: type === undefined ? json(answer) : {} },
    },
  };
  for (const refusal of [...refusals, 500])
    responses[refusal] = { description: 'Why not', content: { [PROBLEM_TYPE]: json('Problem') } };
  return {
    summary,
    parameters: [...inPath, ...inQuery],
    ...(body !== undefined && {
      requestBody: { required: true, content: { 'application/json': json(body) } },
    }),
    responses,
  };
}

function refOf(name: string): string {
  return `#/components/schemas/${name}`;
}

const DIGITS_ALONE = /^\^\\d\{\d+,\d+\}\$$/;
const SWITCH_WORDS = 'on off true false';

/** Settings are checked as text; in JSON numbers and switches may stand there as what they are. */
function jsonSchemaOf(schema: z.ZodType): object {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ jsonSchema }) => {
      const isNumber = jsonSchema.pattern !== undefined && DIGITS_ALONE.test(jsonSchema.pattern);
      const isSwitch = jsonSchema.enum?.join(' ') === SWITCH_WORDS;
      if (isNumber) jsonSchema.type = ['integer', 'string'] as never;
      if (isSwitch) {
        delete jsonSchema.type;
        jsonSchema.enum = ['on', 'off', true, false];
      }
    },
  });
  return json;
}
