/**
 * The web page in a real browser, while testpmd's frames pass: every view shows what is there, forms do what they say, nothing is
 * asked for elsewhere, and it works by the keyboard and on a phone. With RINGWAY_PHOTOGRAPHS=FOLDER it leaves pictures there.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADVICE } from '../../src/advice.ts';
import { Chromium, type Page } from '../peers/chromium.ts';
import { peersForTests, Testpmd } from '../peers/index.ts';
import { freeTcpPort } from '../peers/prometheus.ts';
import { VIRTIO_USER_EAL_ARGS, virtioUserVdev } from '../peers/virtio-user.ts';
import { RingwayProcess } from './ringway-process.ts';
import { START_COMMAND, untilForwarded } from './testpmd-traffic.ts';

const peers = await peersForTests(['testpmd', 'chromium']);
const TOKEN = 'a-token-of-many-letters';
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844, isPhone: true };
const BYTES_MAX = 150 * 1024;
const RINGS = {
  queuePairs: 1,
  server: false,
  packed: false,
  inOrder: true,
  mergeable: true,
  vectorized: false,
};
/** Heights of lines, of the names and rates of links. */
const SMALLEST_TEXT_PX = `Math.min(...[...document.querySelectorAll('.topology text')].map((text) => text.getBoundingClientRect().height))`;
const SMALLEST_READABLE_PX = 10;
/** How far to the right the page goes, and its plots. */
const WIDEST_PX = `Math.max(document.documentElement.scrollWidth, ...[...document.querySelectorAll('.chart canvas')].map((canvas) => canvas.getBoundingClientRect().right))`;
const HISTORY_SHOWN_S = 90;
const folderOfPhotographs = process.env.RINGWAY_PHOTOGRAPHS;

describe.skipIf(peers.skip)(peers.title('the web page'), () => {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-web-'));
  let ringway: RingwayProcess;
  let testpmd: Testpmd;
  let chromium: Chromium;
  let page: Page;
  let base = '';

  /** `afterSeconds`: so that charts have something to show. */
  const photograph = async (name: string, afterSeconds = 0): Promise<void> => {
    if (folderOfPhotographs === undefined) return;
    await delay(1000 * afterSeconds);
    await page.photograph(join(folderOfPhotographs, `${name}.png`));
  };
  /** The view before it may have had the awaited text too. */
  const view = async (hash: string, awaited: string): Promise<string> => {
    await page.run(`location.hash = ${JSON.stringify(hash)}`);
    const [name] = hash.split('/');
    await page.until(`document.querySelector('nav a[aria-current]')?.hash === ${JSON.stringify(`#${name}`)}`);
    await page.until(`document.querySelector('main').innerText.includes(${JSON.stringify(awaited)})`);
    return page.text();
  };

  beforeAll(async () => {
    base = `http://127.0.0.1:${await freeTcpPort()}`;
    writeFileSync(join(folder, 'token'), TOKEN, { mode: 0o600 });
    ringway = await RingwayProcess.start({
      ports: ['a', 'b', 'spare'],
      args: ['--web', base.slice('http://'.length), '--web-token', join(folder, 'token')],
    });
    testpmd = await Testpmd.start({
      vdevs: ['a', 'b'].map((port, index) =>
        virtioUserVdev({
          ...RINGS,
          index,
          socketPath: ringway.socket(port),
          mac: `02:00:00:00:01:0${index + 1}`,
        }),
      ),
      args: ['--forward-mode=io'],
      ealArgs: VIRTIO_USER_EAL_ARGS,
    });
    for (const name of ['a', 'b']) await ringway.untilState(name, 'running');
    await testpmd.command(START_COMMAND);
    await untilForwarded(testpmd, 10_000);
    chromium = await Chromium.start();
    page = await chromium.open(base, DESKTOP);
  });
  afterAll(async () => {
    await chromium?.stop();
    await testpmd?.stop();
    await ringway?.stop();
    rmSync(folder, { recursive: true });
  });

  test('wants the token first', async () => {
    expect(await page.run('location.pathname')).toBe('/login');
    const show = async (token: string): Promise<void> => {
      await page.run(
        `document.getElementById('token').value = ${JSON.stringify(token)}, document.forms[0].requestSubmit()`,
      );
    };
    await show('wrong');
    await page.until(
      `location.hash === '#wrong' && getComputedStyle(document.getElementById('wrong')).display !== 'none'`,
    );
    await show(TOKEN);
    await page.until(`location.pathname === '/'`);
  });

  test('shows what passes, now and over time, and who is busy', async () => {
    await page.until(`document.querySelector('.link')?.innerText.startsWith('live')`);
    const text = await view('overview', 'Worker 0 busy');
    expect(text).toContain('2 of 3');
    await page.until(`document.querySelectorAll('.chart canvas').length === 1`);
    // The rate of the last second.
    await page.until(`parseFloat(document.querySelectorAll('.figure dd')[1].innerText) > 0`);
    expect(
      await page.run(
        `[...document.querySelectorAll('.topology a')].map((link) => link.getAttribute('aria-label').split(',')[0])`,
      ),
    ).toEqual(['a: running', 'b: running', 'spare: waiting']);
    await photograph('web-overview', HISTORY_SHOWN_S);
  });

  test('shows each port with its state, what it waits for, and the lines that plug a guest in', async () => {
    expect(await view('ports', 'waiting for a front-end')).toContain('spare');
    await photograph('web-ports');
    const text = await view('ports/spare', 'qemu-system-x86_64');
    expect(text).toContain(`path=${ringway.socket('spare')}`);
    expect(text).toContain("<interface type='vhostuser'>");
    expect(text).toContain(ADVICE.notConnected.fix);
    await photograph('web-port');
  });

  test('changes a setting, and says why not', async () => {
    await view('ports/spare', 'Settings');
    const set = async (key: string, value: string): Promise<void> => {
      await page.run(
        `(() => { const form = document.querySelector('form.inline'); form.key.value = '${key}'; form.value.value = '${value}'; form.requestSubmit(); })()`,
      );
    };
    await set('tag', '20');
    await page.until(`document.body.innerText.includes('tag is 20 now')`);
    expect((await ringway.port('spare')).settings).toMatchObject({ tag: 20, vlanMode: 'access' });
    await set('tag', '9999');
    await page.until(`document.body.innerText.includes('9999 is not allowed (0 to 4095)')`);
  });

  test('searches addresses', async () => {
    await view('addresses', '02:00:00');
    const search = (text: string): Promise<unknown> =>
      page.run(
        `(() => { const input = document.querySelector('input[type=search]'); input.value = '${text}'; input.dispatchEvent(new InputEvent('input', { bubbles: true })); })()`,
      );
    await search('no such address');
    await page.until(`document.querySelector('main').innerText.includes('0 of')`);
    await search('02:00');
    await page.until(`document.querySelectorAll('tbody tr').length > 0`);
    await photograph('web-addresses');
  });

  test('traces a frame', async () => {
    await view('trace', 'Comes in from');
    await page.run(
      `(() => { const form = document.querySelector('form'); form.port.value = 'a'; form.requestSubmit(); })()`,
    );
    await page.until(`document.querySelector('.steps li')`);
    expect(await page.text()).toContain('Who gets it');
    await photograph('web-trace');
    await page.run(
      `(() => { const form = document.querySelector('form'); form.dst.value = 'x'; form.requestSubmit(); })()`,
    );
    await page.until(`document.body.innerText.includes('Destination: x is no address')`);
  });

  test('captures frames into a file', async () => {
    await view('capture', 'Frames at most');
    await page.run(`
      window.savedBytes = 0;
      URL.createObjectURL = (blob) => { window.savedBytes = blob.size; return 'data:,'; };
      (() => { const form = document.querySelector('form'); form.count.value = '100'; form.requestSubmit(); })()`);
    await page.until('window.savedBytes > 100 * 60');
  });

  test('tells what was dropped, and why', async () => {
    await ringway.set('a', { receive: false });
    await view('drops', 'receiveOff');
    await page.until(`document.querySelector('.chart canvas')`);
    await photograph('web-drops');
    await ringway.set('a', { receive: true });
  });

  test('works by the keyboard, and names what it shows', async () => {
    await view('overview', 'Workers');
    await page.run('document.activeElement.blur()');
    await page.press('Tab');
    expect(await page.run('document.activeElement.innerText')).toBe('To the content');
    await page.press('Enter');
    expect(await page.run('document.activeElement.id')).toBe('main');
    const nameless =
      await page.run<number>(`[...document.querySelectorAll('a, button, input, select, meter, [role=img], [role=region]')]
      .filter((element) => !(element.innerText?.trim() || element.getAttribute('aria-label') || element.labels?.length)).length`);
    expect(nameless).toBe(0);
  });

  test('fits on a phone, in the dark', async () => {
    await page.show({ ...PHONE, isDark: true });
    for (const [hash, awaited] of [
      ['overview', 'Workers'],
      ['ports', 'spare'],
      ['drops', 'receiveOff'],
    ]) {
      await view(hash, awaited);
      // Scripts follow the new size with the next frame of the browser.
      await page.until(`${WIDEST_PX} <= ${PHONE.width}`);
      if (hash === 'overview') await page.until(`${SMALLEST_TEXT_PX} > ${SMALLEST_READABLE_PX}`);
      await photograph(`web-phone-${hash}`);
    }
    await page.show({ ...DESKTOP, isDark: true });
    await view('overview', 'Workers');
    await photograph('web-dark');
  });

  test('asks for nothing elsewhere, throws nothing, and is small', async () => {
    const elsewhere = page.requests.filter(
      (url) => !url.startsWith(base) && !url.startsWith('data:') && url !== 'about:blank',
    );
    expect(elsewhere).toEqual([]);
    // A setting was refused on purpose.
    expect(page.faults.filter((fault) => !fault.includes('400 (Bad Request)'))).toEqual([]);
    const fresh = await chromium.open(base, DESKTOP);
    await fresh.until(`document.querySelector('.chart canvas')`);
    expect(fresh.bytes).toBeLessThan(BYTES_MAX);
  });

  test('says so when the switch is gone, and goes on when it is back', async () => {
    ringway.kill();
    await page.until(`document.querySelector('.link').innerText.includes('does not answer')`);
    await ringway.restart();
    await page.until(`document.querySelector('.link').innerText.includes('live')`);
  });
});
