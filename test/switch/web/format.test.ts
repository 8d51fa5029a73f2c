/** What the page makes of the part of its address that people and links write. */
import { describe, expect, it } from 'vitest';
import { placeOf } from '../../../switch/web/page/format.ts';

describe('what a link to the page names', () => {
  it.each([
    ['', 'overview', ''],
    ['#', 'overview', ''],
    ['#ports', 'ports', ''],
    ['#ports/vm0', 'ports', 'vm0'],
    ['#ports/a%2Fb/c', 'ports', 'a/b/c'],
    ['#ports/%', 'ports', ''],
    ['#toString', 'overview', ''],
    ['#__proto__/x', 'overview', ''],
    ['#nothing/x', 'overview', ''],
  ])('%s', (hash, name, rest) => {
    expect(placeOf(hash, ['overview', 'ports'])).toEqual([name, rest]);
  });
});
