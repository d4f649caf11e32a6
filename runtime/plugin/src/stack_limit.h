/* Put in front of QuickJS's files (see build.sh).
 *
 * For WASI, QuickJS compiles its check of the stack's depth out, so that endless recursion
 * would trap. The stack that it measures is there, though: it is the one in linear memory.
 * The C library's headers insist on the macro, so they go first. */
#include <stdio.h>
#include <wasi/api.h>
#undef __wasi__
