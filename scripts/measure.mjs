// What the measuring scripts share.

import { readFileSync, readdirSync } from "node:fs";

/** CPU time of the runtimes that this process has started, in milliseconds. */
export function cpuTime() {
  const ticks = readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const [, name, rest] = /\((.*)\) (.*)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"));
      const fields = rest.split(" ");
      return name === "workerd" && Number(fields[1]) === process.pid ? [Number(fields[11]) + Number(fields[12])] : [];
    } catch {
      return []; // It has ended meanwhile.
    }
  });
  return ticks.reduce((sum, n) => sum + n, 0) * 10;
}

/** The middle one of some numbers. */
export const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

/** A row of a Markdown table. */
export const row = (...cells) => console.log(`| ${cells.join(" | ")} |`);
