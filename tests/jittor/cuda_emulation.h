// CUDA's words on a CPU. The threads of a block are coroutines of one thread: each runs to the next __syncthreads, in
// the order that `backwards` tells. A result that depends on that order lacks a barrier.
#include <ucontext.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define __global__
#define __device__
#define __shared__ static

static struct { unsigned x; } threadIdx, blockIdx;
static int backwards;

enum { MOST = 256, STACK = 1 << 15 };       // threads of a block, bytes of a stack
static ucontext_t scheduler, coroutines[MOST];
static char ended[MOST], stacks[MOST][STACK];
static void (*body)(const void*);
static const void* closure;

static void __syncthreads() {
    const unsigned own = threadIdx.x;
    swapcontext(&coroutines[own], &scheduler);
    threadIdx.x = own;
}

static void enter() {
    body(closure);
    ended[threadIdx.x] = 1;
}

template <class Kernel> static void launch(int64_t blocks, int threads, const Kernel& kernel) {
    body = [](const void* given) { (*(const Kernel*)given)(); };
    closure = &kernel;
    for (int64_t block = 0; block < blocks; block++) {
        blockIdx.x = block;
        for (int t = 0; t < threads; t++) {
            ended[t] = 0;
            getcontext(&coroutines[t]);
            coroutines[t].uc_stack.ss_sp = stacks[t];
            coroutines[t].uc_stack.ss_size = STACK;
            coroutines[t].uc_link = &scheduler;
            makecontext(&coroutines[t], enter, 0);
        }
        for (int alive = threads; alive;) {
            alive = 0;
            for (int k = 0; k < threads; k++) {
                const int t = backwards ? threads - 1 - k : k;
                threadIdx.x = t;
                swapcontext(&scheduler, &coroutines[t]);
                alive += !ended[t];
            }
            if (alive && alive != threads) { fprintf(stderr, "some threads ended before a barrier\n"); abort(); }
        }
    }
}

struct Shape {
    int64_t sides[8];
    int count;
    int size() { return count; }
    int64_t operator[](int i) { return sides[i]; }
};
struct Var { int64_t num; Shape shape; };
