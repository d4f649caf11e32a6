'use strict';
// Calls a function in a fresh `vm` context each time: JSON text in, JSON text out. The function's source is
// the first argument. See script.rs for what is said on stdin and stdout.
const vm = require('node:vm');

const input = '{"name":"world","numbers":[1,2,3]}';
const source = process.argv[2].replace(/^export default /, '');
const script = new vm.Script(`JSON.stringify((${source})(JSON.parse(input)))`);

const call = () => script.runInContext(vm.createContext({ input }));

console.log(call());
require('node:readline')
  .createInterface({ input: process.stdin })
  .on('line', (line) => {
    const calls = Number(line);
    const began = process.hrtime.bigint();
    for (let i = 0; i < calls; i++) call();
    console.log(String(process.hrtime.bigint() - began));
  });
