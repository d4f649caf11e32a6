#!/usr/bin/env bash
# Builds orb_javy_1.wasm and its BLAKE3, orb_javy_1.wasm.b3.
#
# Needs Rust for wasm32-wasip1 and a WASI SDK (for QuickJS, which is C):
#   rustup target add wasm32-wasip1
# The build of QuickJS takes the SDK that WASI_SDK names, or else fetches one.
# Where rustup has no such target, set RUSTC, WASI_SDK and WASI_CARGO_FLAGS (say
# -Zbuild-std=std,panic_abort, with RUSTC_BOOTSTRAP=1) to a compiler that has its sources.
#
# A changed engine is another engine: artifacts name it by its hash, so those that are
# published must be built again.
set -euo pipefail
cd "$(dirname "$0")"

target=wasm32-wasip1
if [[ -z ${WASI_CARGO_FLAGS:-} ]] && command -v rustup >/dev/null &&
  ! rustup target list --installed | grep -qx "$target"; then
  echo "first: rustup target add $target" >&2
  exit 1
fi

# Paths of this machine must not get into the module.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$("${RUSTC:-rustc}" --print sysroot)
remap="--remap-path-prefix=$PWD=plugin"
for registry in "$cargo_home"/registry/src/*/; do
  remap+=" --remap-path-prefix=${registry%/}=crates"
done
remap+=" --remap-path-prefix=$sysroot=rust"
# The stack in linear memory: a quarter more than JavaScript may use of it (src/engine.rs).
stack="-Clink-arg=-zstack-size=1310720"

# QuickJS with its check of the stack's depth (see the header), and memory.copy for memcpy.
# The sum has no meaning but that a changed header is noticed.
header=$PWD/src/quickjs_on_wasi.h
export CFLAGS_wasm32_wasip1="-include $header -mbulk-memory -DORB_HEADER=$(cksum <"$header" | cut -d' ' -f1)"
# shellcheck disable=SC2086 # several flags
RUSTFLAGS="$remap $stack" cargo build --release --locked --target "$target" ${WASI_CARGO_FLAGS:-}

# The tool is an ordinary program: the settings for WebAssembly are not for it.
env -u RUSTC -u RUSTC_BOOTSTRAP -u LD_LIBRARY_PATH \
  cargo run --release --locked --manifest-path preinit/Cargo.toml -- \
  "${CARGO_TARGET_DIR:-target}/$target/release/orb_javy_plugin.wasm" orb_javy_1.wasm
ls -l orb_javy_1.wasm
cat orb_javy_1.wasm.b3
