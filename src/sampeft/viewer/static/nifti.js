// A .nii.gz of the server in, its grid and its values out; read as it arrives, so that what is too large is known early.

import { answer, Refusal } from "/api.js";

const MOST_BYTES = 1.5 * 2 ** 30; // of one array, which browsers can hold beside its copies
const TYPES = {
  2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, 128: Uint8Array,
  256: Int8Array, 512: Uint16Array, 768: Uint32Array, 1024: BigInt64Array, 1280: BigUint64Array,
};
const RGB = 128;
const UNIT_MM = { 1: 1000, 3: 0.001 };

/** {size: [I, J, K], data, rgb, slope, inter, affine: 4 rows, to mm in RAS+}. onProgress: called with bytes and their total. */
export async function readNifti(url, { onProgress = () => {}, signal } = {}) {
  const response = await answer(url, { signal });
  const reader = response.body.pipeThrough(new DecompressionStream("gzip")).getReader();
  let head = new Uint8Array(0);
  let rest = null;
  let header = null;
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (header === null) {
      const joined = new Uint8Array(head.length + value.length);
      joined.set(head);
      joined.set(value, head.length);
      head = joined;
      if (head.length < 544) continue;
      header = readHeader(new DataView(head.buffer));
      if (header.bytes > MOST_BYTES) {
        await reader.cancel();
        const size = `${header.size.join(" x ")} voxels, ${(header.bytes / 2 ** 30).toFixed(1)} GiB`;
        throw new Refusal(`this image has ${size}, more than a browser can show; its files can still be downloaded`);
      }
      if (head.length < header.begins) throw new Refusal("this image has a header that is too long");
      rest = new Uint8Array(header.bytes);
      filled = append(rest, head.subarray(header.begins), 0);
    } else filled = append(rest, value, filled);
    onProgress(filled, header.bytes);
  }
  if (header === null || filled < header.bytes) throw new Refusal("the image ended too early; load it again");
  let data = new header.type(rest.buffer);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) data = Float64Array.from(data, Number);
  return { ...header, data };
}

function append(target, part, from) {
  const fitting = part.subarray(0, target.length - from);
  target.set(fitting, from);
  return from + fitting.length;
}

function readHeader(view) {
  const second = view.getInt32(0, true) === 540; // NIfTI-2
  if (!second && view.getInt32(0, true) !== 348) throw new Refusal("this is no NIfTI file");
  const dimension = (n) => (second ? Number(view.getBigInt64(16 + 8 * n, true)) : view.getInt16(40 + 2 * n, true));
  const size = [1, 2, 3].map((n) => (n <= dimension(0) ? Math.max(1, dimension(n)) : 1));
  const code = view.getInt16(second ? 12 : 70, true);
  const type = TYPES[code];
  if (!type) throw new Refusal(`the values of this image are of NIfTI's type ${code}, which browsers cannot show`);
  const real = (first, second_) => (second ? view.getFloat64(second_, true) : view.getFloat32(first, true));
  const unit = UNIT_MM[view.getInt32(second ? 500 : 120, true) & 7] ?? 1;
  const row = (r) =>
    [0, 1, 2, 3].map((c) => unit * (second ? view.getFloat64(400 + 32 * r + 8 * c, true) : view.getFloat32(280 + 16 * r + 4 * c, true)));
  const slope = real(112, 176) || 1;
  const channels = code === RGB ? 3 : 1;
  return {
    size, type, slope, rgb: code === RGB,
    inter: real(116, 184) || 0,
    begins: Number(second ? view.getBigInt64(168, true) : view.getFloat32(108, true)),
    bytes: size[0] * size[1] * size[2] * type.BYTES_PER_ELEMENT * channels,
    affine: [row(0), row(1), row(2), [0, 0, 0, 1]],
  };
}
