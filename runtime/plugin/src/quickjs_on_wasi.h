/* Put in front of QuickJS's files (see build.sh): what QuickJS leaves out on WASI and could
 * have. The C library's headers insist on __wasi__, so they go first. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <wasi/api.h>

/* QuickJS compiles its check of the stack's depth out, so that endless recursion would trap.
 * The stack that it measures is there, though: it is the one in linear memory. */
#undef __wasi__

/* Where that stack stands, for the check. The host's stack, which compiled code also uses and
 * which can't be seen from here, grows with it, but some functions that recurse take much of
 * that and little of this: so that the one measures the other, each that checks takes this much. */
#define ORB_STACK_STEP 128
static inline void *orb_stack_position(void)
{
    char step[ORB_STACK_STEP];
    void *position = step;
    __asm__ volatile("" : "+r"(position) : : "memory");
    return position;
}
#define __builtin_frame_address(level) orb_stack_position()

/* Asked for only to decide whether malloc_usable_size exists. Without it the heap's size is
 * not known, so that cycles are hardly ever collected, and text is copied at every +=. */
#define __GLIBC__ 2

/* An exception that says "out of memory" can't always be made: QuickJS then throws null. */
extern int orb_allocation_failed;

static inline void *orb_noted(void *ptr, size_t size)
{
    if (!ptr && size)
        orb_allocation_failed = 1;
    return ptr;
}

#define malloc(size) orb_noted(malloc(size), size)
#define calloc(count, size) orb_noted(calloc(count, size), (count) * (size))
#define realloc(ptr, size) orb_noted(realloc(ptr, size), size)
