// Recognises a source that is no path: a URL, or a container image in a way of naming it that is not read.
import { failedWith, RootfsError } from '../system/errors.js';
import { userInfoHidden } from '../system/user-info.js';

// Those of skopeo and podman, which can copy each into a layout.
const OTHER_TRANSPORT = /^(docker-archive|oci-archive|dir|docker-daemon|containers-storage):/;

/** As docker and podman take it, such as `debian:12`. */
const BARE = /^(?:docker:)?([a-z\d][\w.-]*(?::\d+)?(?:\/[\w.-]+)*(?::\w[\w.-]*|@sha256:[\da-f]{64}))$/;

const URL = /^[a-z][a-z\d+.-]*:\/\//i;

/**
 * The error for a source, as the caller gave it, that does not exist. For a URL and for a container image of another
 * kind it is `REFERENCE_INVALID`; what may be a path after all keeps its own error, with advice.
 */
export function missingSource(given: string, error: unknown): unknown {
  if (!failedWith(error, 'ENOENT')) return error;
  if (URL.test(given)) return urlError(given, error);
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

function urlError(given: string, error: unknown): RootfsError {
  const shown = userInfoHidden(given) ?? given;
  const [, local] = /^file:\/\/(?:localhost)?(\/.*)$/i.exec(given) ?? [];
  const advice =
    local === undefined
      ? `Fetch it and publish the file, or - for standard input, as in curl -fL URL | microvm-rootfs publish NAME -`
      : `Publish ${local}`;
  return new RootfsError('REFERENCE_INVALID', `${shown} is a URL, not a path. ${advice}`, {
    path: shown,
    cause: error,
  });
}
