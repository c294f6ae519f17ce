// Apart from what runs programs: the types of the package reach this file, and need none of Node's.

/** A file that a program gets as it is held open, whatever file has its name by then. */
export interface HeldFile {
  /** The argument that it stands for. */
  readonly path: string;
  readonly fd: number;
  /** Called when it is the program's turn. If it rejects, the program is not started. */
  requireOurs(): Promise<void>;
}
