import { startChat } from "./chat.js";
import { rejoin, startFeed } from "./feed.js";
import { showGap, showPush, showUser, startInbox } from "./inbox.js";
import { startRoom } from "./room.js";

startChat();
startInbox(rejoin);
startRoom();
startFeed({
  hello: showUser,
  push: showPush,
  gap: (log) => { if (log === "inbox") showGap(); },
});
