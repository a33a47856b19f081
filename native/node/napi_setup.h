#pragma once

// The only file that includes napi.h, so that all of the addon agrees on what it asks of it.

// Node 20 has Node-API 9.
#ifndef NAPI_VERSION
#define NAPI_VERSION 9
#endif

// Every C++ exception becomes a JavaScript error. Without ALL, one that is not a Napi::Error ends the process.
#ifndef NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#define NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#endif

// While a worker is being terminated nothing can be thrown into it; trying anyway would end the whole process.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS

#include <napi.h>
