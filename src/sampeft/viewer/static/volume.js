// An image's array and affine in; its planes as radiologists look at them, its values and its windows out.

const WORLD = [["R", "L"], ["A", "P"], ["S", "I"]];
// Plane -> world axis across it, down its rows and along its columns.
const PLANES = { axial: [2, 1, 0], coronal: [1, 2, 0], sagittal: [0, 2, 1] };
const SAMPLES = 200_000;

export class Volume {
  /** read: what `readNifti` gives. */
  constructor(read) {
    Object.assign(this, read);
    this.strides = [1, this.size[0], this.size[0] * this.size[1]];
    const column = (axis) => [0, 1, 2].map((world) => this.affine[world][axis]);
    this.spacing = [0, 1, 2].map((axis) => Math.hypot(...column(axis)) || 1);
    this.flat = this.size[2] === 1 && this.affine.every((row, r) => row.every((v, c) => v === [1, -1, 1, 1][r] * (r === c)));
    this.world = alongWorld([0, 1, 2].map((axis) => column(axis).map((v) => v / this.spacing[axis])));
  }

  /** Names of the planes that can be looked at. */
  get planes() {
    return this.flat ? ["picture"] : Object.keys(PLANES);
  }

  /** {name, slice, row, column: array axes; backwards: [slice, row, column]; letters: what lies at each edge}. */
  plane(name) {
    if (this.flat) return { name: "picture", slice: 2, row: 1, column: 0, backwards: [false, false, false], letters: null };
    const [across, down, along] = PLANES[name].map((world) => this.world[world]);
    const side = (world, grows) => WORLD[world][grows ? 0 : 1];
    const [, rows, columns] = PLANES[name];
    return {
      name,
      slice: across.axis, row: down.axis, column: along.axis,
      // Rows go down from A or S, columns go right from R or A.
      backwards: [!across.grows, down.grows, along.grows],
      letters: { top: side(rows, true), bottom: side(rows, false), left: side(columns, true), right: side(columns, false) },
    };
  }

  offset([i, j, k]) {
    return i + j * this.strides[1] + k * this.strides[2];
  }

  /** The value at a voxel, as the file means it; [red, green, blue] of colours. */
  value(voxel) {
    const at = this.offset(voxel);
    return this.rgb ? [...this.data.subarray(3 * at, 3 * at + 3)] : this.data[at] * this.slope + this.inter;
  }

  /** A sorted sample of the values. */
  get sample() {
    if (this.kept) return this.kept;
    const step = Math.max(1, Math.floor(this.data.length / SAMPLES) | 1);
    const found = [];
    for (let n = 0; n < this.data.length; n += step) {
      const value = this.data[n] * this.slope + this.inter;
      if (Number.isFinite(value)) found.push(value);
    }
    this.kept = Float64Array.from(found.length ? found : [0, 1]).sort();
    return this.kept;
  }

  /** Whether values look like Hounsfield units: air is near -1000, soft tissue and bone are above 0. */
  get isHu() {
    const sample = this.sample;
    return !this.rgb && sample[0] <= -500 && sample[0] > -10_000 && sample.at(-1) >= 50;
  }

  /** {low, high} from the 0.5 to the 99.5 percentile. */
  get autoWindow() {
    const sample = this.sample;
    const [low, high] = [0.005, 0.995].map((share) => sample[Math.round(share * (sample.length - 1))]);
    return high > low ? { low, high } : { low: sample[0], high: Math.max(sample.at(-1), sample[0] + 1) };
  }

  /** Whether another volume has the same grid, so that one lies on the other voxel by voxel. */
  matches(other) {
    const near = (a, b, axis) => Math.abs(a - b) <= 0.01 * (axis < 3 ? this.spacing[axis] : Math.min(...this.spacing));
    return (
      this.size.every((n, axis) => n === other.size[axis]) &&
      this.affine.every((row, r) => row.every((v, c) => near(v, other.affine[r][c], c)))
    );
  }
}

/** For each world axis the array axis that runs along it most, and whether it grows with it. Each array axis is used once. */
function alongWorld(columns) {
  const found = [null, null, null];
  const pairs = [];
  for (let axis = 0; axis < 3; axis++) for (let world = 0; world < 3; world++) pairs.push([Math.abs(columns[axis][world]), axis, world]);
  pairs.sort((a, b) => b[0] - a[0]);
  const used = new Set();
  for (const [, axis, world] of pairs) {
    if (found[world] || used.has(axis)) continue;
    found[world] = { axis, grows: columns[axis][world] >= 0 };
    used.add(axis);
  }
  return found;
}

/** {index of each pixel's first voxel, steps along columns and rows} of a slice; index: along the array's axis. */
export function walk(volume, plane, index) {
  const [width, height] = [volume.size[plane.column], volume.size[plane.row]];
  const [, rowBack, columnBack] = plane.backwards;
  const alongColumns = volume.strides[plane.column] * (columnBack ? -1 : 1);
  const alongRows = volume.strides[plane.row] * (rowBack ? -1 : 1);
  const start =
    index * volume.strides[plane.slice] +
    (columnBack ? (width - 1) * volume.strides[plane.column] : 0) +
    (rowBack ? (height - 1) * volume.strides[plane.row] : 0);
  return { width, height, start, alongColumns, alongRows };
}

/** The voxel under pixel (column, row) of a slice. */
export function voxelOf(volume, plane, index, column, row) {
  const voxel = [0, 0, 0];
  voxel[plane.slice] = index;
  voxel[plane.row] = plane.backwards[1] ? volume.size[plane.row] - 1 - row : row;
  voxel[plane.column] = plane.backwards[2] ? volume.size[plane.column] - 1 - column : column;
  return voxel;
}

/** The pixel [column, row] of a voxel in its slice: the inverse of `voxelOf`. */
export function pixelOf(volume, plane, voxel) {
  return [plane.column, plane.row].map((axis, n) =>
    plane.backwards[2 - n] ? volume.size[axis] - 1 - voxel[axis] : voxel[axis],
  );
}

/** The number of a slice, counted from 0 as the server counts, and back: the same either way. */
export const slicePlace = (volume, plane, index) => (plane.backwards[0] ? volume.size[plane.slice] - 1 - index : index);
