// NiiVue's module from node_modules in, the files that the page loads out: src/sampeft/viewer/static/vendor/.

import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const library = join(here, "node_modules", "@niivue", "niivue");
const target = join(here, "..", "src", "sampeft", "viewer", "static", "vendor");

const { name, version, license, repository } = JSON.parse(await readFile(join(library, "package.json"), "utf8"));
await mkdir(target, { recursive: true });
await copyFile(join(library, "dist", "index.js"), join(target, "niivue.js"));
await writeFile(join(target, "NOTICE.txt"), `niivue.js is ${name} ${version}, ${license}: ${repository?.url ?? "https://github.com/niivue/niivue"}\n`);
console.log(`${name} ${version} -> ${target}`);
