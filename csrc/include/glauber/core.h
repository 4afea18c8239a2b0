/* The core's interface for C: core_api.h with what it needs around it. */
#ifndef GLAUBER_CORE_H
#define GLAUBER_CORE_H

#include <stddef.h>
#include <stdint.h>

#include "glauber/core_api.h"

#endif
