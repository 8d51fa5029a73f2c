/** How many ports a switch can have. By itself, so that who reads a configuration loads no more. */
export const PORTS_MAX = 4096;
