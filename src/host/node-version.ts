/**
 * Refuses a Node that is too old: there koffi ends the process in native code, sooner or later. So whoever imports koffi
 * imports this file first. The command has a check of its own (switch/cli/ringway.js), for it finds a newer Node by itself.
 */
const NODE_MAJOR_MIN = 24;

if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
  throw new Error(
    `ringway: Node ${NODE_MAJOR_MIN} or later is needed, this is ${process.versions.node} ` +
      `(install it, or run npm install node@${NODE_MAJOR_MIN} in your project and start it with npx node)`,
  );
}
