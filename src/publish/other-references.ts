// Recognises a source that is not a path, but a container image in a way of naming it that is not read.
import { failedWith, RootfsError } from '../system/errors.js';

// Those of skopeo and podman, which can copy each into a layout.
const OTHER_TRANSPORT = /^(docker-archive|oci-archive|dir|docker-daemon|containers-storage):/;

/** As docker and podman take it, such as `debian:12`. */
const BARE = /^(?:docker:)?([a-z\d][\w.-]*(?::\d+)?(?:\/[\w.-]+)*(?::\w[\w.-]*|@sha256:[\da-f]{64}))$/;

/**
 * The error for a source, as the caller gave it, that does not exist. For a container image of another kind it is
 * `REFERENCE_INVALID`; what may be a path after all keeps its own error, with advice.
 */
export function missingSource(given: string, error: unknown): unknown {
  if (!failedWith(error, 'ENOENT')) return error;
  if (OTHER_TRANSPORT.test(given))
    return new RootfsError(
      'REFERENCE_INVALID',
      `${given} is not a path. Container images can be docker://HOST/NAME:TAG or oci:DIR: ` +
        `run skopeo copy ${given} oci:DIR, and publish oci:DIR`,
      { path: given, cause: error },
    );
  const [, image] = BARE.exec(given) ?? [];
  if (image === undefined) return error;
  const { errno, syscall, path } = error as NodeJS.ErrnoException;
  return new RootfsError(
    'ENOENT',
    `there is no file ${given}: make sure that the path exists, or for the container image publish docker://${image}`,
    { errno, syscall, path, cause: error },
  );
}
