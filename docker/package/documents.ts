/** What goes beside a program in a package: manual pages and completions, made of the commands, and the unit file. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { constants, gzipSync } from 'node:zlib';
import { commandWords } from '../../switch/cli/command-tree.ts';
import { completionScript } from '../../switch/cli/completion-scripts.ts';
import { manPages } from '../../switch/cli/man-pages.ts';
import { buildProgram } from '../../switch/cli/program.ts';
import { settingKeys } from '../../switch/cli/setting-keys.ts';
import { ringwayVersion } from '../../switch/cli/version.ts';
import { UNIT_NAME, unitText } from '../../switch/service/unit-file.ts';

/** Where Debian's programs look for them, from the root that is packed. */
export async function writeDocuments(root: string): Promise<void> {
  const write = (path: string, content: string | Uint8Array): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  const words = commandWords(await buildProgram());
  for (const [name, page] of Object.entries(manPages(words, ringwayVersion())))
    write(`usr/share/man/man1/${name}.gz`, gzipSync(page, { level: constants.Z_BEST_COMPRESSION }));
  const keys = settingKeys();
  write('usr/share/bash-completion/completions/ringway', completionScript('bash', words, keys));
  write('usr/share/zsh/vendor-completions/_ringway', completionScript('zsh', words, keys));
  write('usr/share/fish/vendor_completions.d/ringway.fish', completionScript('fish', words, keys));
  write(
    `usr/lib/systemd/system/${UNIT_NAME}`,
    unitText({ command: '/usr/bin/ringway', config: '/etc/ringway.yaml' }),
  );
}
