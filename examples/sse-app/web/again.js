// Coming back after a failure.

const waits = new Set(); // what would happen later

// later calls f after a wait that doubles with every failure. A random part
// keeps a thousand pages from coming back in the same moment. The wait is over
// at once when the network or the reader is back.
export function later(failures, f) {
  const wait = Math.min(30000, 500 * 2 ** failures) * (0.5 + Math.random() / 2);
  const go = () => { cancel(); f(); };
  const timer = setTimeout(go, wait);
  const cancel = () => { clearTimeout(timer); waits.delete(go); };
  waits.add(go);
  return { cancel, text: `next try in ${(wait / 1000).toFixed(1)} s` };
}

function hurry() {
  if (document.visibilityState !== "visible") return;
  for (const go of [...waits]) go();
}
addEventListener("online", hurry);
document.addEventListener("visibilitychange", hurry);

// LastingSource is an EventSource that lasts. The browser's own comes back after
// a cut, but gives up for good when it sees any answer but 200, as a proxy's 502
// while everything restarts. This one is then built anew.
export class LastingSource {
  #source = null; // the EventSource, from start to stop
  #again = null; // the wait for a new one
  #failures = 0; // new ones in a row that never opened
  opened = 0;

  // address gives the URL, each time: a new EventSource knows no Last-Event-ID.
  // on has a listener per event name. state is told what the state line says.
  // refused is asked before another try, and may call stop.
  constructor({ address, on, state, refused = async () => {} }) {
    Object.assign(this, { address, on, state, refused });
  }

  get wanted() { return this.#source !== null; }
  get failures() { return this.#failures; }

  start() {
    this.#drop();
    const source = this.#source = new EventSource(this.address());
    this.state(this.opened ? "reconnecting" : "connecting");
    source.addEventListener("open", () => {
      this.#failures = 0;
      this.opened++;
      this.state("open");
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CONNECTING) this.state("reconnecting");
      else this.#rebuild(source);
    });
    for (const [name, heard] of Object.entries(this.on)) source.addEventListener(name, heard);
  }

  async #rebuild(source) {
    this.state("reconnecting");
    this.#failures++;
    await this.refused();
    if (source !== this.#source) return; // stopped or started meanwhile
    this.#again = later(this.#failures - 1, () => this.start());
    this.state("reconnecting", this.#again.text);
  }

  #drop() {
    this.#again?.cancel();
    this.#again = null;
    this.#source?.close();
    this.#source = null;
  }

  stop(why) {
    this.#drop();
    this.state("closed", why);
  }
}
