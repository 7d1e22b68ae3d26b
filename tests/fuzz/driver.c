/* libFuzzer around Python: an input goes to one function of tests/fuzz/targets.py. The natives are built with clang's
 * -fsanitize=address,undefined,fuzzer-no-link, so their branches guide it and their errors end it; Python itself is as
 * it is. FASTSERVE_FUZZ_TARGET names the target, FASTSERVE_FUZZ_PYTHON the interpreter whose environment it runs in. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

static PyObject *target;

static void give_up(void) {
    PyErr_Print();
    abort();        /* libFuzzer keeps the input */
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    PyConfig_SetBytesString(&config, &config.program_name, getenv("FASTSERVE_FUZZ_PYTHON"));
    PyStatus status = Py_InitializeFromConfig(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    PyConfig_Clear(&config);
    PyObject *module = PyImport_ImportModule("tests.fuzz.targets");
    if (module == NULL)
        give_up();
    target = PyObject_CallMethod(module, "load", "s", getenv("FASTSERVE_FUZZ_TARGET"));
    if (target == NULL)
        give_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *input = PyBytes_FromStringAndSize((const char *) data, (Py_ssize_t) size);
    PyObject *result = input == NULL ? NULL : PyObject_CallOneArg(target, input);
    if (result == NULL)
        give_up();
    Py_DECREF(result);
    Py_DECREF(input);
    return 0;
}
