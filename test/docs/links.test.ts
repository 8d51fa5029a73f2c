/** Links between the documents: each leads to a file, and to a heading of it; and a newcomer finds every document from README. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PAGES = readdirSync(join(ROOT, 'docs'))
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/${name}`);
const DOCUMENTS = ['README.md', 'HACKING.md', 'CHANGELOG.md', ...PAGES];
const textOf = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** As the hosts of repositories make them of headings. */
function anchorsOf(path: string): string[] {
  const text = textOf(path).replace(/```.*?```/gs, '');
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_\- ]/gu, '')
      .replaceAll(' ', '-'),
  );
}

it.each(DOCUMENTS)('%s links to what is there', (document) => {
  const broken = [...textOf(document).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, link]) => link)
    .filter((link) => !/^https?:/.test(link))
    .filter((link) => {
      const [file, anchor] = link.split('#');
      const path = file === '' ? document : normalize(join(dirname(document), file));
      if (!existsSync(join(ROOT, path))) return true;
      return anchor !== undefined && path.endsWith('.md') && !anchorsOf(path).includes(anchor);
    });
  expect(broken).toEqual([]);
});

it('README names every page', () => {
  const readme = textOf('README.md');
  expect(PAGES.filter((page) => !readme.includes(`(${page})`))).toEqual([]);
});
