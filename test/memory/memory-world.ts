/**
 * What tests of guest memory stand on: one arena for the file, a fresh GuestMemory for each test, and the check
 * after each that nothing stays mapped or open. Importing it registers those hooks.
 */
import { afterAll, afterEach, beforeEach, expect } from 'vitest';
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { type GpaMap, GpaTranslator } from '../../src/memory/gpa-translator.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { GuestFile } from './guest-file.ts';

export const GIB = 2 ** 30;
export const MIB = 2 ** 20;
export const PAGE = 4096;

export const arena = Arena.reserve(64 * GIB);
export const view = new ArenaView(arena.location);
afterAll(() => arena.release());

export let memory: GuestMemory;
let before: OpenFds;
let files: GuestFile[];
beforeEach(() => {
  before = openFds();
  memory = new GuestMemory(arena);
  files = [];
});
afterEach(() => {
  memory.clear();
  for (const file of files) file.close();
  expect(arena.mappedBytes).toBe(0);
  expect(openedSince(before)).toEqual([]);
});

/** As REM_MEM_REG does once nobody uses the region. */
export function remove(region: MemRegion): void {
  const rest = memory.without(region);
  memory.unmapBut(rest);
  memory = rest;
}

export function file(sizeBytes: number): GuestFile {
  const made = new GuestFile(sizeBytes);
  files.push(made);
  return made;
}

export const lo = (address: number): number => address | 0;
export const hi = (address: number): number => Math.floor(address / 2 ** 32) | 0;

/** Arena offset of a guest address as a worker finds it, or -1. */
export function locate(map: GpaMap, gpa: number, sizeBytes: number): number {
  const translator = new GpaTranslator(map);
  const index = translator.locate(lo(gpa), hi(gpa), sizeBytes | 0);
  return index < 0 ? -1 : translator.window * WINDOW_BYTES + index;
}
