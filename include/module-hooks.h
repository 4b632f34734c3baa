/*
 *  module-hooks.h - hooks in the manner of Momentum: points at which functions are called that others have registered.
 *
 *  A hook has a scope, a name, and a header of its own, hooks/SCOPE/NAME.h, that declares it with one of the macros
 *  below. A declaration gives the type of a registered function and four functions:
 *
 *      ec_hook_SCOPE_NAME_func_t                               the function type, a closure as its first argument
 *      int  has_SCOPE_NAME_hook(void)                          whether anybody has registered
 *      void register_SCOPE_NAME_hook_first(function, closure)  to be called before those that are registered now
 *      void register_SCOPE_NAME_hook_last(function, closure)   to be called after them
 *      TYPE call_SCOPE_NAME_hook(arguments)                    calls them all; for hooks that plugins make themselves
 *
 *  mqlite calls the hooks of hooks/core/. Register for them in mq_initialize(), or in conf_setup or ext_init of a
 *  Momentum module (module.h). Plugins may declare further hooks for each other, in a scope of their own.
 *
 *  A registered function runs in the event loop, and must not block. Functions that were compiled against another
 *  declaration of the same hook are not registered, and the log says so.
 */
#ifndef MODULE_HOOKS_H
#define MODULE_HOOKS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef int ec_atomic_t;

/* What the macros are made of. `name` is SCOPE_NAME, `proto` the types of the arguments; `flags` says nothing here. */
ec_atomic_t *module_add_hook_first(const char *name, const char *proto, void *hook, void *closure, int flags);
ec_atomic_t *module_add_hook_last(const char *name, const char *proto, void *hook, void *closure, int flags);

/* mqlite's own: the function registered at a place, counted from 0, and its closure; 0 when there are not so many. */
int mqlite_hook_at(const char *name, const char *proto, int place, void **hook, void **closure);

#ifdef __cplusplus
}
#endif

/* In the arguments of a call: the closure. In what handles a result: the result, and `return` with a value. */
#define EC_HOOK_CLOSURE         ec_hook_closure_
#define EC_HOOK_RETVAL          ec_hook_retval_
#define EC_HOOK_RETURN(value)   return (value)

/*
 *  (scope, name, (types with the closure), (arguments of the caller), (what to call with, EC_HOOK_CLOSURE first))
 */
#define EC_DECLARE_VOID_HOOK(module, name, typedefargs, declargs, callargs) \
    EC_HOOK_COMMON_(module##_##name, void, typedefargs, #module "_" #name, #typedefargs) \
    static __inline__ void call_##module##_##name##_hook declargs \
    { \
        void *ec_hook_function_, *ec_hook_closure_; \
        int ec_hook_place_ = 0; \
        while (mqlite_hook_at(#module "_" #name, #typedefargs, ec_hook_place_++, \
                              &ec_hook_function_, &ec_hook_closure_)) \
            (__extension__ (ec_hook_##module##_##name##_func_t *)ec_hook_function_) callargs; \
    }

/*
 *  (scope, type of the result, name, ... as above ..., statement that looks at EC_HOOK_RETVAL after each function, and
 *  may EC_HOOK_RETURN(a value) without calling the others). Without that, the result is that of the last function.
 */
#define EC_DECLARE_HOOK(module, type, name, typedefargs, declargs, callargs, handleret) \
    EC_HOOK_COMMON_(module##_##name, type, typedefargs, #module "_" #name, #typedefargs) \
    static __inline__ type call_##module##_##name##_hook declargs \
    { \
        void *ec_hook_function_, *ec_hook_closure_; \
        int ec_hook_place_ = 0; \
        type ec_hook_retval_ = (type)0; \
        while (mqlite_hook_at(#module "_" #name, #typedefargs, ec_hook_place_++, \
                              &ec_hook_function_, &ec_hook_closure_)) { \
            ec_hook_retval_ = (__extension__ (ec_hook_##module##_##name##_func_t *)ec_hook_function_) callargs; \
            handleret; \
        } \
        return ec_hook_retval_; \
    }

#define EC_HOOK_COMMON_(hook, type, typedefargs, name, proto) \
    typedef type ec_hook_##hook##_func_t typedefargs; \
    static __inline__ int has_##hook##_hook(void) \
    { \
        void *ec_hook_function_, *ec_hook_closure_; \
        return mqlite_hook_at(name, proto, 0, &ec_hook_function_, &ec_hook_closure_); \
    } \
    static __inline__ void register_##hook##_hook_first(ec_hook_##hook##_func_t *function, void *closure) \
    { \
        module_add_hook_first(name, proto, __extension__ (void *)function, closure, 0); \
    } \
    static __inline__ void register_##hook##_hook_last(ec_hook_##hook##_func_t *function, void *closure) \
    { \
        module_add_hook_last(name, proto, __extension__ (void *)function, closure, 0); \
    }

#endif
