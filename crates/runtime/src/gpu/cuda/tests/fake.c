/* What is used of libcuda and libnccl, on host memory. Calls are logged, and can be told to fail. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long address;
typedef struct { char bytes[128]; } unique_id;

static char calls[1 << 16];
static char failing[64];
static int failure;
static int asynchronous;
static int busy;
static int version = 12040;
static int devices = 2;
static int nccl_version = 22703;
static int unblocking, in_progress;
static int handles;

/* A capture under way: which streams take part, whether the first has waited for them, and what of that events hold. */
enum { MOST = 4096, UNSUPPORTED = 900, UNJOINED = 904, ISOLATION = 905 };
static int origin, invalid;
static char taking_part[MOST], joined[MOST], event_captured[MOST];
static int event_stream[MOST];

const char *fake_calls(void) { return calls; }
void fake_forget(void) { calls[0] = 0; }
void fake_fail(const char *name, int status) { snprintf(failing, sizeof failing, "%s", name); failure = status; }
void fake_set(int new_version, int new_devices) { version = new_version; devices = new_devices; }
void fake_set_nccl(int version) { nccl_version = version; }
/* From now on calls of NCCL are in progress until a communicator has been asked for its state so many times;
   they end with this status. */
void fake_unblock(int asked, int status) { unblocking = asked; asynchronous = status; }
void fake_hang(int status) { busy = 1; asynchronous = status; }

static int call(const char *name, const char *format, ...) {
    size_t used = strlen(calls);
    va_list arguments;
    va_start(arguments, format);
    used += snprintf(calls + used, sizeof calls - used, "%s", name);
    used += vsnprintf(calls + used, sizeof calls - used, format, arguments);
    snprintf(calls + used, sizeof calls - used, "\n");
    va_end(arguments);
    if (strcmp(name, failing)) return 0;
    failing[0] = 0;
    return failure;
}

static int make(const char *name, void **handle) {
    *handle = (void *)(size_t)++handles;
    return call(name, " -> %d", handles);
}

/* The status of a call of NCCL that succeeds or goes on. */
static int going(int status) { if (status || !unblocking) return status; in_progress = unblocking; return 7; }

#define NUMBER(handle) ((int)(size_t)(handle))

/* Work of a stream: the first one has to wait for it again. */
static void work(void *stream) { joined[NUMBER(stream)] = 0; }
/* What the host must not do in a capture. */
static int host(int status) { if (!origin) return status; invalid = 1; return UNSUPPORTED; }

int cuInit(unsigned flags) { return call("cuInit", " %u", flags); }
int cuDriverGetVersion(int *to) { *to = version; return call("cuDriverGetVersion", ""); }
int cuGetErrorName(int status, const char **to) { *to = status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : status == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_X"; return 0; }
int cuGetErrorString(int status, const char **to) { *to = "explanation"; return status == 998; }
int cuDeviceGetCount(int *to) { *to = devices; return call("cuDeviceGetCount", ""); }
int cuDeviceGet(int *to, int index) { *to = 100 + index; return call("cuDeviceGet", " %d", index); }
int cuDeviceGetName(char *to, int size, int device) { snprintf(to, size, "Fake GPU %d", device); return call("cuDeviceGetName", ""); }
int cuDeviceGetAttribute(int *to, int attribute, int device) { *to = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : 232448; return call("cuDeviceGetAttribute", " %d", attribute); }
int cuDeviceTotalMem_v2(size_t *to, int device) { *to = 1ull << 37; return call("cuDeviceTotalMem", " %d", device); }
int cuDevicePrimaryCtxRetain(void **to, int device) { return make("cuDevicePrimaryCtxRetain", to); }
int cuDevicePrimaryCtxRelease_v2(int device) { return call("cuDevicePrimaryCtxRelease", " %d", device); }
int cuCtxSetCurrent(void *context) { return call("cuCtxSetCurrent", " %d", NUMBER(context)); }
int cuCtxSynchronize(void) { return host(call("cuCtxSynchronize", "")); }
int cuMemAlloc_v2(address *to, size_t bytes) {
    int status = call("cuMemAlloc", " %zu", bytes);
    if (status) return status;
    *to = (address)aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset((void *)*to, 0xff, bytes);
    return 0;
}
int cuMemFree_v2(address of) { free((void *)of); return call("cuMemFree", ""); }
int cuMemsetD8Async(address to, unsigned char value, size_t bytes, void *stream) { memset((void *)to, value, bytes); return call("cuMemsetD8Async", " %d %zu stream %d", value, bytes, NUMBER(stream)); }
int cuMemHostAlloc(void **to, size_t bytes, unsigned flags) { *to = malloc(bytes); return call("cuMemHostAlloc", " %zu %u", bytes, flags); }
int cuMemFreeHost(void *of) { free(of); return call("cuMemFreeHost", ""); }
int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t bytes, void *stream) { work(stream); memcpy((void *)to, from, bytes); return call("cuMemcpyHtoDAsync", " %zu stream %d", bytes, NUMBER(stream)); }
int cuMemcpyDtoHAsync_v2(void *to, address from, size_t bytes, void *stream) { work(stream); memcpy(to, (void *)from, bytes); return call("cuMemcpyDtoHAsync", " %zu stream %d", bytes, NUMBER(stream)); }
int cuStreamCreate(void **to, unsigned flags) { int status = make("cuStreamCreate", to); call(" flags", " %u", flags); return status; }
int cuStreamDestroy_v2(void *stream) { return call("cuStreamDestroy", " %d", NUMBER(stream)); }
int cuStreamQuery(void *stream) { int status = call("cuStreamQuery", " %d", NUMBER(stream)); return busy ? 600 : host(status); }
int cuStreamSynchronize(void *stream) { return host(call("cuStreamSynchronize", " %d", NUMBER(stream))); }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    int status = call("cuStreamWaitEvent", " %d event %d %u", NUMBER(stream), NUMBER(event), flags);
    if (status || !origin) return status;
    if (!event_captured[NUMBER(event)]) {
        if (!taking_part[NUMBER(stream)]) return 0;
        invalid = 1;
        return ISOLATION;
    }
    taking_part[NUMBER(stream)] = 1;
    work(stream);
    if (NUMBER(stream) == origin) joined[event_stream[NUMBER(event)]] = 1;
    return 0;
}
int cuEventCreate(void **to, unsigned flags) { return make("cuEventCreate", to); }
int cuEventDestroy_v2(void *event) { return call("cuEventDestroy", " %d", NUMBER(event)); }
int cuEventRecord(void *event, void *stream) { event_captured[NUMBER(event)] = taking_part[NUMBER(stream)]; event_stream[NUMBER(event)] = NUMBER(stream); return call("cuEventRecord", " %d stream %d", NUMBER(event), NUMBER(stream)); }
int cuEventSynchronize(void *event) { return call("cuEventSynchronize", " %d", NUMBER(event)); }
int cuModuleLoadDataEx(void **to, const void *image, unsigned options, int *option, void **value) {
    if (!strcmp(failing, "cuModuleLoadDataEx") && options == 2 && option[0] == 5 && option[1] == 6)
        snprintf(value[0], (size_t)value[1], "ptxas fatal: line 7");
    int status = make("cuModuleLoadDataEx", to);
    call(" image", " %s", (const char *)image);
    return status;
}
int cuModuleUnload(void *module) { return call("cuModuleUnload", " %d", NUMBER(module)); }
int cuModuleGetFunction(void **to, void *module, const char *name) { int status = make("cuModuleGetFunction", to); call(" name", " %s", name); return status; }
int cuFuncSetAttribute(void *function, int attribute, int value) { return call("cuFuncSetAttribute", " %d %d %d", NUMBER(function), attribute, value); }
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **parameters, void **extra) {
    work(stream);
    return call("cuLaunchKernel", " %d grid %u %u %u block %u %u %u shared %u stream %d first %d extra %d", NUMBER(function), x, y, z, bx, by, bz, shared, NUMBER(stream), *(int *)parameters[0], extra != 0);
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
    int status = call("cuStreamBeginCapture", " %d mode %d", NUMBER(stream), mode);
    if (!status) { origin = NUMBER(stream); taking_part[origin] = 1; invalid = 0; }
    return status;
}
int cuStreamEndCapture(void *stream, void **to) {
    int status = make("cuStreamEndCapture", to);
    for (int i = 0; i < MOST && !status; i++)
        if (taking_part[i] && i != origin && !joined[i]) status = UNJOINED;
    if (invalid) status = 901;
    memset(taking_part, 0, sizeof taking_part);
    memset(event_captured, 0, sizeof event_captured);
    origin = 0;
    return status;
}
int cuGraphInstantiateWithFlags(void **to, void *graph, unsigned long long flags) { return make("cuGraphInstantiate", to); }
int cuGraphLaunch(void *graph, void *stream) { return call("cuGraphLaunch", " %d stream %d", NUMBER(graph), NUMBER(stream)); }
int cuGraphExecDestroy(void *graph) { return call("cuGraphExecDestroy", " %d", NUMBER(graph)); }
int cuGraphDestroy(void *graph) { return call("cuGraphDestroy", " %d", NUMBER(graph)); }

int ncclGetVersion(int *to) { *to = nccl_version; return call("ncclGetVersion", ""); }
int ncclGetUniqueId(unique_id *to) { memset(to, 'u', sizeof *to); return call("ncclGetUniqueId", ""); }
int ncclCommInitRank(void **to, int ranks, unique_id id, int rank) { int status = make("ncclCommInitRank", to); call(" as", " %d of %d, id %c%c", rank, ranks, id.bytes[0], id.bytes[127]); return going(status); }
int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation, void *communicator, void *stream) { work(stream); return going(call("ncclAllReduce", " %zu %d %d communicator %d stream %d", count, type, operation, NUMBER(communicator), NUMBER(stream))); }
int ncclGroupStart(void) { return call("ncclGroupStart", ""); }
int ncclGroupEnd(void) { return going(call("ncclGroupEnd", "")); }
int ncclCommGetAsyncError(void *communicator, int *to) { *to = in_progress && --in_progress ? 7 : asynchronous; return call("ncclCommGetAsyncError", ""); }
int ncclCommAbort(void *communicator) { return call("ncclCommAbort", " %d", NUMBER(communicator)); }
int ncclCommDestroy(void *communicator) { return call("ncclCommDestroy", " %d", NUMBER(communicator)); }
const char *ncclGetErrorString(int status) { return status == 6 ? "remote process exited" : "some error"; }
