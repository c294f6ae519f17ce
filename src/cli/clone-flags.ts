// The options of every command that makes a clone.
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { CloneOptions, Owner } from '../index.js';
import { parseSize } from './sizes.js';

export interface OwnerFlags {
  readonly size?: number;
  readonly owner?: Owner;
  readonly mode?: number;
}

export interface CloneFlags extends OwnerFlags {
  readonly writable?: boolean;
  readonly readOnly?: boolean;
  readonly durable?: boolean;
}

export type CopyFlags = Pick<CloneFlags, 'owner' | 'mode' | 'durable'>;

/** Flags of commands that make a disk of a clone or a snapshot, with its length. */
export function addCopyFlags(command: Command): Command {
  return addOwnerFlags(command).option('--durable', 'flush to disk before the command ends');
}

export function copyOptions({
  owner,
  mode,
  durable,
}: CopyFlags): Pick<CloneOptions, 'owner' | 'mode' | 'durable'> {
  return {
    ...(owner === undefined ? {} : { owner }),
    ...(mode === undefined ? {} : { mode }),
    ...(durable ? { durable } : {}),
  };
}

/** What a clone is to be like: those of ready slots too. */
export function addSizeAndOwnerFlags(command: Command): Command {
  return addOwnerFlags(command.option('--size <size>', 'grow the clone to this size: 8G, 512MiB', parseSize));
}

function addOwnerFlags(command: Command): Command {
  return command
    .option('--owner <uid:gid>', "the image's owner, for a jailed VMM", parseOwner)
    .option('--mode <octal>', "the image's permission bits: 0640", parseMode);
}

export function addCloneFlags(command: Command): Command {
  return addSizeAndOwnerFlags(command)
    .addOption(
      new Option('--writable', 'the guest writes to its root: never make a hardlink').conflicts('readOnly'),
    )
    .addOption(new Option('--read-only', 'the guest mounts its root read-only: allow a hardlink'))
    .option('--durable', 'flush to disk before the command ends');
}

export function sizeAndOwnerOptions({ size, owner, mode }: OwnerFlags): CloneOptions {
  return {
    ...(size === undefined ? {} : { sizeBytes: size }),
    ...(owner === undefined ? {} : { owner }),
    ...(mode === undefined ? {} : { mode }),
  };
}

export function cloneOptions(flags: CloneFlags): CloneOptions {
  const { writable, readOnly, durable } = flags;
  return {
    ...sizeAndOwnerOptions(flags),
    ...(writable || readOnly ? { writable: writable === true } : {}),
    ...(durable ? { durable } : {}),
  };
}

function parseOwner(text: string): Owner {
  const match = /^(\d{1,10}):(\d{1,10})$/.exec(text);
  if (match === null) throw new InvalidArgumentError('An owner is two numbers: 1000:1000.');
  return { uid: Number(match[1]), gid: Number(match[2]) };
}

function parseMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text))
    throw new InvalidArgumentError('A mode is three octal digits after an optional 0: 0640.');
  return Number.parseInt(text, 8);
}

/** For options that count something. */
export function parseCount(text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number))
    throw new InvalidArgumentError('It must be a whole number, 0 or more.');
  return number;
}
