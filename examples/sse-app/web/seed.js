// All that an event stream needs. /seed?n=5 asks for five messages, then the end.
const show = (id, text) => { document.getElementById(id).textContent = text; };
const source = new EventSource("/stream" + location.search);
let text = "";

source.onopen = () => show("state", "connected");
source.onmessage = (e) => {
  if (/^\[done\]$/i.test(e.data)) {
    source.close(); // without this the browser would come back and ask for it all again
    show("state", "complete");
    return;
  }
  show("text", text += e.data + "\n"); // textContent, never innerHTML: it comes from outside
};
source.onerror = () => show("state", source.readyState === EventSource.CLOSED ? "closed" : "reconnecting");
window.source = source; // for whoever wants to look at its readyState
