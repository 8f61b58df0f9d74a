// A Node.js service as its owners write it: @pyroscope/nodejs. Burns CPU in a function of its own and ends.
import Pyroscope from '@pyroscope/nodejs';

const [server, seconds] = process.argv.slice(2);

function resizePicture(until) {
  let total = 0;
  while (performance.now() < until) {
    for (let i = 0; i < 10_000; i++) total += Math.sqrt(i);
  }
  return total;
}

Pyroscope.init({
  serverAddress: server,
  appName: 'node.pictures',
  tags: { region: 'south' },
  flushIntervalMs: 1000,
  wall: { collectCpuTime: true },
});
Pyroscope.start();
const end = performance.now() + Number(seconds) * 1000;
while (performance.now() < end) {
  Pyroscope.wrapWithLabels({ endpoint: '/resize' }, () => resizePicture(performance.now() + 50));
  await new Promise((resolve) => setImmediate(resolve));
}
await Pyroscope.stop();
