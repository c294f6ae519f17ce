// The files of the pool: their names, and what is written in them.
//
//   pool/<sha256>-<size>-…-<template tag>-<strategy>-<session>-<number>/   a slot that is no VM's yet
//   pool/<sha256>-<template tag>.json                                      the template of such slots, for recover()
//
// Ready slots of a snapshot are named by the digest of the template that it descends from, and by a tag of the
// snapshot.

import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../addon/native.js';
import type { Template } from '../catalog/template.js';
import { isFileState, recordTemplate, type TemplateRecord } from '../catalog/template-record.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { readOwnFile, replaceOwnFile } from '../folder/state-files.js';
import type { OwnerAndMode } from '../image/owner-and-mode.js';
import {
  CLONE_ROOTFS_FILE,
  CLONE_SIZE_STAMP_FILE,
  CLONE_STAMP_FILE,
  parseSizeStamp,
  parseStamp,
} from '../slot/stamps.js';
import type { Owner } from '../system/arguments.js';
import type { Strategy } from '../system/strategy.js';

const RECORD_BYTES_LIMIT = 64 * 1024;
const STAMP_BYTES_LIMIT = 128;

/**
 * What ready slots are made of: a template, or the disk of a snapshot. A snapshot has the digest of the template that
 * it descends from.
 */
export interface PoolSource extends Template {
  readonly snapshot?: {
    readonly name: string;
    /** The stack of the template that it descends from, if known. */
    readonly stack: string | undefined;
    /** The digest of its manifest, which tells two snapshots of one template apart. */
    readonly manifestSha256: string;
  };
}

/** What a ready slot is. Only a request for exactly this can take it. */
export interface PoolKey extends OwnerAndMode {
  readonly template: PoolSource;
  /** What its size stamp says. Undefined if it has none: it has the template's size. */
  readonly grownTo: number | undefined;
}

/** The record of what ready slots are made of. */
interface PoolRecord extends TemplateRecord {
  readonly snapshot?: { readonly name: string; readonly stack?: string };
}

/** What the names of all ready slots of a kind begin with. At most 255 bytes, however long the template's path is. */
export function prefixOf({ template, grownTo, owner, mode }: PoolKey): string {
  const parts = [template.sha256, sizeOf({ template, grownTo })];
  if (owner !== undefined) parts.push(`o${owner.uid}.${owner.gid}`);
  if (mode !== undefined) parts.push(`m${mode.toString(8)}`);
  return `${parts.join('-')}-${tagOf(template)}-`;
}

/** A VMM may have made the disk of a snapshot longer than its stamp says. */
function sizeOf({ template, grownTo }: Pick<PoolKey, 'template' | 'grownTo'>): number {
  const { sizeBytes } = template.identity;
  return template.snapshot === undefined ? (grownTo ?? sizeBytes) : sizeBytes;
}

function tagOf({ path, snapshot }: Pick<PoolSource, 'path' | 'snapshot'>): string {
  const text = snapshot === undefined ? path : `${path}\n${snapshot.manifestSha256}`;
  return `t${native().sha256(text).slice(0, 16)}`;
}

/** Whether ready slots of one source serve a request for the other. Both have the same path. */
export function isSameSource(a: SourceName, b: SourceName): boolean {
  return a.sha256 === b.sha256 && a.snapshot?.manifestSha256 === b.snapshot?.manifestSha256;
}

/** `unique` differs from that of any other ready slot of any process. */
export function readyName(prefix: string, strategy: Strategy, unique: string): string {
  return `${prefix}${strategy}-${unique}`;
}

/** The {@link prefixOf} of a ready slot's kind. */
export function readyPrefix(name: string): string {
  return `${parseReadyName(name)?.kind ?? ''}-`;
}

/** What ready slots are looked up by. */
export type SourceName = Pick<PoolSource, 'path' | 'sha256' | 'snapshot'>;

/** What the name of a ready slot says. */
interface ReadyName {
  /** The same for all ready slots of one template or snapshot, size, owner and mode. */
  readonly kind: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
  readonly tag: string;
  readonly strategy: Strategy;
}

/** Undefined if {@link readyName} did not make it. */
export function parseReadyName(name: string): ReadyName | undefined {
  const [, kind, sha256 = '', size, uid, gid, mode, tag = '', strategy] =
    /^(([0-9a-f]{64})-(\d+)(?:-o(\d+)\.(\d+))?(?:-m([0-7]+))?-(t[0-9a-f]{16}))-(reflink|copy)-/.exec(name) ??
    [];
  if (kind === undefined) return undefined;
  return {
    kind,
    sha256,
    sizeBytes: Number(size),
    owner: uid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) },
    mode: mode === undefined ? undefined : Number.parseInt(mode, 8),
    tag,
    strategy: strategy as Strategy,
  };
}

export function isRecord(name: string): boolean {
  return name.endsWith('.json');
}

/** How a ready slot was made. */
export function readyStrategy(name: string): Strategy {
  return parseReadyName(name)?.strategy ?? 'copy';
}

/** The name of the record without which a ready slot is discarded; of a record its own. */
export function recordOf(name: string): string {
  if (isRecord(name)) return name;
  const { sha256 = '', tag = '' } = parseReadyName(name) ?? {};
  return recordName(sha256, tag);
}

/** The digest in a record's name. */
export function digestIn(record: string): string {
  return record.slice(0, 64);
}

/** The name of the record of a template's ready slots. */
export function recordNameOf(source: SourceName): string {
  return recordName(source.sha256, tagOf(source));
}

function recordName(sha256: string, tag: string): string {
  return `${sha256}-${tag}.json`;
}

export async function writeRecord(
  folder: OpenFolder,
  file: string,
  { path, identity, snapshot }: PoolSource,
): Promise<void> {
  const record: PoolRecord = {
    ...(await recordTemplate(path, identity)),
    ...(snapshot && { snapshot: { name: snapshot.name, ...(snapshot.stack && { stack: snapshot.stack }) } }),
  };
  await replaceOwnFile(file, `${JSON.stringify(record)}\n`, folder.sessionPath);
}

export async function readPoolRecord(path: string): Promise<PoolRecord | undefined> {
  const text = await readOwnFile(path, RECORD_BYTES_LIMIT);
  try {
    const record = JSON.parse(text ?? '') as PoolRecord;
    const { templatePath, template, snapshot } = record;
    const isOurs = snapshot === undefined || typeof snapshot.name === 'string';
    return isOurs && typeof templatePath === 'string' && isFileState(template) ? record : undefined;
  } catch {
    return undefined; // garbage: what it describes is made again
  }
}

/** The default permission bits of an image, and those of a slot's folder. */
const IMAGE_MODE = 0o600;
const FOLDER_MODE = 0o755;

/**
 * Whether a ready slot is whole and still has the owner and mode that it was made with. A power cut may have damaged
 * it; a restored backup or a `chown -R` may have changed its owner or mode. `ours` owns what this process makes.
 */
export async function isAsMade(
  path: string,
  { template, grownTo, owner, mode }: PoolKey,
  ours: Owner,
): Promise<boolean> {
  try {
    const [stamp, sizeStamp, folder, image] = await Promise.all([
      readOwnFile(join(path, CLONE_STAMP_FILE), STAMP_BYTES_LIMIT),
      readOwnFile(join(path, CLONE_SIZE_STAMP_FILE), STAMP_BYTES_LIMIT),
      lstat(path),
      lstat(join(path, CLONE_ROOTFS_FILE)),
    ]);
    const { uid, gid } = owner ?? ours;
    return (
      parseStamp(stamp) === template.sha256 &&
      parseSizeStamp(sizeStamp) === grownTo &&
      image.isFile() &&
      image.size === sizeOf({ template, grownTo }) &&
      image.uid === uid &&
      image.gid === gid &&
      (image.mode & 0o7777) === (mode ?? IMAGE_MODE) &&
      folder.uid === ours.uid &&
      (folder.mode & 0o777) === FOLDER_MODE
    );
  } catch {
    return false; // taken by another process meanwhile, or not whole: of no use either way
  }
}
