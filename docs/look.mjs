// Looks at every page of the built site in headless Chromium: light and dark, wide and as a telephone shows it.
//
//   node --experimental-websocket docs/look.mjs build/site build/look   (the option is not needed from Node 22 on; Chromium as `chromium`, or named by CHROMIUM)
//
// Reports pages that are wider than their window, scripts that fail and files that are missing, and leaves a picture of
// every page. The exit status is 1 where there is something to report.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [site, out] = process.argv.slice(2).map((p) => resolve(p));
const SIZES = { wide: [1280, 900, false], phone: [390, 844, true] };
const SCHEMES = ["light", "dark"];

const pages = readdirSync(site, { recursive: true }).filter((f) => f.endsWith(".html")).sort();
const profile = mkdtempSync(join(tmpdir(), "look-"));
const browser = spawn(process.env.CHROMIUM ?? "chromium", [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", `--user-data-dir=${profile}`,
  "--allow-file-access-from-files", "about:blank",
]);
const address = await new Promise((found, failed) => {
  let text = "";
  browser.stderr.on("data", (part) => {
    text += part;
    const match = text.match(/ws:\/\/\S+/);
    if (match) found(match[0]);
  });
  browser.on("exit", () => failed(new Error(`Chromium ended: ${text}`)));
});
const socket = new WebSocket(address);
await new Promise((open) => socket.addEventListener("open", open));

let last = 0;
const waiting = new Map();
const events = [];
socket.addEventListener("message", ({ data }) => {
  const message = JSON.parse(data);
  if (message.id) {
    waiting.get(message.id)(message);
    waiting.delete(message.id);
  } else events.push(message);
});
const ask = (method, params = {}, sessionId) =>
  new Promise((done, failed) => {
    waiting.set(++last, (m) => (m.error ? failed(new Error(`${method}: ${m.error.message}`)) : done(m.result)));
    socket.send(JSON.stringify({ id: last, method, params, sessionId }));
  });
const until = async (method) => {
  while (!events.some((e) => e.method === method)) await new Promise((go) => setTimeout(go, 20));
};

const problems = [];
for (const scheme of SCHEMES) {
  const { browserContextId } = await ask("Target.createBrowserContext"); // the site remembers the colours of a visitor
  const { targetId } = await ask("Target.createTarget", { url: "about:blank", browserContextId });
  const { sessionId } = await ask("Target.attachToTarget", { targetId, flatten: true });
  for (const domain of ["Page", "Runtime", "Network"]) await ask(`${domain}.enable`, {}, sessionId);
  for (const [size, [width, height, mobile]] of Object.entries(SIZES))
    for (const page of pages) {
      events.length = 0;
      await ask("Emulation.setDeviceMetricsOverride", { width, height, mobile, deviceScaleFactor: 1 }, sessionId);
      const features = [{ name: "prefers-color-scheme", value: scheme }];
      await ask("Emulation.setEmulatedMedia", { features }, sessionId);
      await ask("Page.navigate", { url: pathToFileURL(join(site, page)).href }, sessionId);
      await until("Page.loadEventFired");
      const note = (text) => problems.push(`${page} (${scheme}, ${size}): ${text}`);
      const expression = "[document.documentElement.scrollWidth, document.body.getAttribute('data-md-color-scheme')]";
      const { result } = await ask("Runtime.evaluate", { expression, returnByValue: true }, sessionId);
      const [wide, colours] = result.value;
      if (wide > width) note(`is ${wide} pixels wide`);
      if (colours !== null && (colours === "slate") !== (scheme === "dark")) note(`has the colours ${colours}`);
      for (const { method, params } of events) {
        if (method === "Runtime.exceptionThrown") note(params.exceptionDetails.exception?.description ?? "exception");
        if (method === "Network.loadingFailed" && !params.canceled) note(`a file is missing: ${params.errorText}`);
      }
      const { cssContentSize } = await ask("Page.getLayoutMetrics", {}, sessionId);
      const clip = { x: 0, y: 0, width, height: Math.min(cssContentSize.height, 2400), scale: 1 };
      const shot = { format: "png", clip, captureBeyondViewport: true };
      const { data } = await ask("Page.captureScreenshot", shot, sessionId);
      const file = join(out, `${scheme}-${size}`, `${relative(site, join(site, page)).replaceAll("/", "_")}.png`);
      mkdirSync(join(file, ".."), { recursive: true });
      writeFileSync(file, Buffer.from(data, "base64"));
    }
}

console.log(`${pages.length} pages, ${SCHEMES.length * Object.keys(SIZES).length} ways each`);
for (const problem of problems) console.log(problem);
browser.removeAllListeners("exit");
browser.kill();
process.exit(problems.length ? 1 : 0);
