// The files of the pool: their names, and what is written in them.
//
//   pool/<sha256>-<size>-…-<template tag>-<strategy>-<session>-<number>/   a slot that is no VM's yet
//   pool/<sha256>-<template tag>.json                                      the template of such slots, for recover()

import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../addon/native.js';
import type { Template } from '../catalog/template.js';
import { isFileState, recordTemplate, type TemplateRecord } from '../catalog/template-record.js';
import type { OpenFolder } from '../folder/managed-folder.js';
import { readOwnFile, replaceOwnFile } from '../folder/state-files.js';
import type { OwnerAndMode } from '../image/owner-and-mode.js';
import {
  CLONE_ROOTFS_FILE,
  CLONE_SIZE_STAMP_FILE,
  CLONE_STAMP_FILE,
  parseSizeStamp,
  parseStamp,
} from '../slot/stamps.js';
import type { Strategy } from '../system/strategy.js';

const RECORD_BYTES_LIMIT = 64 * 1024;
const STAMP_BYTES_LIMIT = 128;

/** What a ready slot is. Only a request for exactly this can take it. */
export interface PoolKey extends OwnerAndMode {
  readonly template: Template;
  /** Undefined if it has the template's size. */
  readonly grownTo: number | undefined;
}

/** What the names of all ready slots of a kind begin with. At most 255 bytes, however long the template's path is. */
export function prefixOf({ template, grownTo, owner, mode }: PoolKey): string {
  const parts = [template.sha256, grownTo ?? template.identity.sizeBytes];
  if (owner !== undefined) parts.push(`o${owner.uid}.${owner.gid}`);
  if (mode !== undefined) parts.push(`m${mode.toString(8)}`);
  return `${parts.join('-')}-${tagOf(template.path)}-`;
}

function tagOf(templatePath: string): string {
  return `t${native().sha256(templatePath).slice(0, 16)}`;
}

/** `unique` differs from that of any other ready slot of any process. */
export function readyName(prefix: string, strategy: Strategy, unique: string): string {
  return `${prefix}${strategy}-${unique}`;
}

/** How a ready slot was made. */
export function readyStrategy(name: string): Strategy {
  return name.includes('-reflink-') ? 'reflink' : 'copy';
}

/** Whether it is the name of a ready slot of the template, or of its record. */
export function isOfTemplate(name: string, { path, sha256 }: Template): boolean {
  return name.startsWith(sha256) && name.includes(`-${tagOf(path)}`);
}

export function isRecord(name: string): boolean {
  return name.endsWith('.json');
}

/** The name of the record without which a ready slot is discarded; of a record its own. */
export function recordOf(name: string): string {
  if (isRecord(name)) return name;
  const [, sha256 = '', tag = ''] = /^([0-9a-f]{64})-.*-(t[0-9a-f]{16})-/.exec(name) ?? [];
  return recordName(sha256, tag);
}

/** The name of the record of a template's ready slots. */
export function recordNameOf({ path, sha256 }: Template): string {
  return recordName(sha256, tagOf(path));
}

function recordName(sha256: string, tag: string): string {
  return `${sha256}-${tag}.json`;
}

export async function writeRecord(
  folder: OpenFolder,
  file: string,
  { path, identity }: Template,
): Promise<void> {
  const record = await recordTemplate(path, identity);
  await replaceOwnFile(file, `${JSON.stringify(record)}\n`, folder.sessionPath);
}

export async function readPoolRecord(path: string): Promise<TemplateRecord | undefined> {
  const text = await readOwnFile(path, RECORD_BYTES_LIMIT);
  try {
    const record = JSON.parse(text ?? '') as TemplateRecord;
    return typeof record.templatePath === 'string' && isFileState(record.template) ? record : undefined;
  } catch {
    return undefined; // garbage: what it describes is made again
  }
}

/** Whether it is whole, as after a power cut it may not be. */
export async function isWhole(path: string, { template, grownTo }: PoolKey): Promise<boolean> {
  try {
    const [stamp, sizeStamp, image] = await Promise.all([
      readOwnFile(join(path, CLONE_STAMP_FILE), STAMP_BYTES_LIMIT),
      readOwnFile(join(path, CLONE_SIZE_STAMP_FILE), STAMP_BYTES_LIMIT),
      lstat(join(path, CLONE_ROOTFS_FILE)),
    ]);
    const sizeBytes = grownTo ?? template.identity.sizeBytes;
    return (
      parseStamp(stamp) === template.sha256 &&
      parseSizeStamp(sizeStamp) === grownTo &&
      image.isFile() &&
      image.size === sizeBytes
    );
  } catch {
    return false; // taken by another process meanwhile, or not whole: of no use either way
  }
}
