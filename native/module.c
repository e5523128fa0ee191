/* sarrapipe._native: thin wrappers that turn Python objects into the arguments of native/kernels.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>

#include "kernels.h"

/* The aligned word at `offset` bytes of a buffer; NULL with an exception set if there is none. */
static uint64_t *word_at(const Py_buffer *view, Py_ssize_t offset)
{
    if (offset < 0 || view->len < 8 || offset > view->len - 8) {
        PyErr_SetString(PyExc_IndexError, "no 64-bit word at this offset of the buffer");
        return NULL;
    }
    uintptr_t address = (uintptr_t)view->buf + (size_t)offset;
    if (address % 8 != 0) {
        PyErr_SetString(PyExc_ValueError, "atomic words are aligned to 8 bytes");
        return NULL;
    }
    return (uint64_t *)address;
}

/* Convert a Python integer 0 .. 2^64-1; -1 with OverflowError otherwise. */
static int as_word(PyObject *object, uint64_t *value)
{
    *value = PyLong_AsUnsignedLongLong(object);
    return *value == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *atomic_load(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer view;
    Py_ssize_t offset;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "y*n:atomic_load", &view, &offset))
        return NULL;
    const uint64_t *word = word_at(&view, offset);
    if (word != NULL)
        result = PyLong_FromUnsignedLongLong(sp_atomic_load(word));
    PyBuffer_Release(&view);
    return result;
}

static PyObject *atomic_store(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer view;
    Py_ssize_t offset;
    PyObject *object, *result = NULL;
    uint64_t value;

    if (!PyArg_ParseTuple(args, "w*nO!:atomic_store", &view, &offset, &PyLong_Type, &object))
        return NULL;
    uint64_t *word = word_at(&view, offset);
    if (word == NULL || as_word(object, &value) < 0)
        goto exit;
    sp_atomic_store(word, value);
    result = Py_NewRef(Py_None);
exit:
    PyBuffer_Release(&view);
    return result;
}

static PyObject *atomic_add(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer view;
    Py_ssize_t offset;
    long long delta;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "w*nL:atomic_add", &view, &offset, &delta))
        return NULL;
    uint64_t *word = word_at(&view, offset);
    if (word != NULL)
        result = PyLong_FromUnsignedLongLong(sp_atomic_add(word, (uint64_t)delta));
    PyBuffer_Release(&view);
    return result;
}

static PyObject *compare_and_swap(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer view;
    Py_ssize_t offset;
    PyObject *old, *new, *result = NULL;
    uint64_t expected, desired;

    if (!PyArg_ParseTuple(args, "w*nO!O!:compare_and_swap", &view, &offset, &PyLong_Type, &old, &PyLong_Type, &new))
        return NULL;
    uint64_t *word = word_at(&view, offset);
    if (word == NULL || as_word(old, &expected) < 0 || as_word(new, &desired) < 0)
        goto exit;
    result = PyBool_FromLong(sp_atomic_cas(word, expected, desired));
exit:
    PyBuffer_Release(&view);
    return result;
}

static PyObject *open_beneath(PyObject *module, PyObject *args)
{
    (void)module;
    int dir_fd, flags, mode = 0, fd;
    PyObject *path;

    if (!PyArg_ParseTuple(args, "iO&i|i:open_beneath", &dir_fd, PyUnicode_FSConverter, &path, &flags, &mode))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    fd = sp_open_beneath(dir_fd, PyBytes_AS_STRING(path), flags | O_CLOEXEC, (mode_t)mode);
    Py_END_ALLOW_THREADS
    if (fd < 0)
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AS_STRING(path));
    Py_DECREF(path);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *sync_file_system(PyObject *module, PyObject *args)
{
    (void)module;
    int fd, failed;

    if (!PyArg_ParseTuple(args, "i:sync_file_system", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = sp_sync_file_system(fd);
    Py_END_ALLOW_THREADS
    return failed ? PyErr_SetFromErrno(PyExc_OSError) : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"atomic_load", atomic_load, METH_VARARGS, "atomic_load($module, buffer, offset, /)\n--\n\nThe word at offset."},
    {"atomic_store", atomic_store, METH_VARARGS, "atomic_store($module, buffer, offset, value, /)\n--\n\nSet the word."},
    {"atomic_add", atomic_add, METH_VARARGS,
     "atomic_add($module, buffer, offset, delta, /)\n--\n\nAdd modulo 2**64; return the new value."},
    {"compare_and_swap", compare_and_swap, METH_VARARGS,
     "compare_and_swap($module, buffer, offset, expected, desired, /)\n--\n\nSwap if it holds expected."},
    {"open_beneath", open_beneath, METH_VARARGS,
     "open_beneath($module, dir_fd, path, flags, mode=0, /)\n--\n\nOpen below dir_fd, through no symbolic link."},
    {"sync_file_system", sync_file_system, METH_VARARGS,
     "sync_file_system($module, fd, /)\n--\n\nWrite out the file system that fd is on."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "sarrapipe._native",
    .m_doc = "C kernels; use sarrapipe.native, which falls back on the Python twins.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
