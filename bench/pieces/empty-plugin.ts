/** A plugin that decides nothing: what asking one costs (cases.ts). */
import type { PluginFactory } from '../../switch/plugin/interface.ts';

const factory: PluginFactory = () => ({ version: 1, decide() {} });

export default factory;
