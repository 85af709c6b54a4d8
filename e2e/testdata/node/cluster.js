// Node's own cluster: the primary listens, two workers answer with their pids.
const cluster = require('cluster');
if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork();
} else {
  require('./server.js');
}
