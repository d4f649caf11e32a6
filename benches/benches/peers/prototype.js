'use strict';
// The shape of the 2018 prototype, one program for each of its three parts:
//
//   prototype.js relay                      prints its port
//   prototype.js host PORT MODE SOURCE      holds one function; MODE: function or vm
//   prototype.js caller PORT IN_FLIGHT      calls it; see script.rs for what is said on stdin and stdout
//
// Calls and answers are events with acknowledgements, which the relay passes on.
const vm = require('node:vm');

const input = { name: 'world', numbers: [1, 2, 3] };
const answer = '{"hello":"world","sum":6}';

function relay() {
  const { Server } = require('socket.io');
  const http = require('node:http').createServer();
  let host;
  new Server(http, { transports: ['websocket'] }).on('connection', (socket) => {
    socket.on('host', (registered) => {
      host = socket;
      registered();
    });
    socket.on('call', (call, answered) => host.emit('run', call, answered));
  });
  http.listen(0, '127.0.0.1', () => console.log(http.address().port));
}

function connect(port) {
  const { io } = require('socket.io-client');
  return io(`http://127.0.0.1:${port}`, { transports: ['websocket'] });
}

const evaluate = {
  function: (source, input) => new Function('input', `return (${source})(input)`)(input),
  vm: (source, input) => vm.runInContext(`(${source})(input)`, vm.createContext({ input })),
};

function host(port, mode, source) {
  const functions = new Map([['hello', source.replace(/^export default /, '')]]);
  const socket = connect(port);
  socket.on('run', (call, answered) => answered(evaluate[mode](functions.get(call.name), call.input)));
  socket.on('connect', () => socket.emit('host', () => console.log('registered')));
}

function caller(port, inFlight) {
  const socket = connect(port);
  const call = () => new Promise((answered) => socket.emit('call', { name: 'hello', input }, answered));
  async function measure(calls) {
    let left = calls;
    const began = process.hrtime.bigint();
    const worker = async () => {
      while (left-- > 0) await call();
    };
    await Promise.all(Array.from({ length: inFlight }, worker));
    console.log(String(process.hrtime.bigint() - began));
  }
  socket.on('connect', async () => {
    const got = JSON.stringify(await call());
    if (got !== answer) throw new Error(`another answer: ${got}`);
    console.log('connected');
    const lines = require('node:readline').createInterface({ input: process.stdin });
    lines.on('line', (line) => measure(Number(line)));
  });
}

const [role, ...rest] = process.argv.slice(2);
if (role === 'relay') relay();
else if (role === 'host') host(...rest);
else caller(rest[0], Number(rest[1]));
