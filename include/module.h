/*
 *  module.h - what a module of Momentum needs of its own to be loaded as a plugin of mqlite: enough for one whose work is
 *  done in hooks.
 *
 *  A module is a shared object in `plugin-directory` that has no mq_version(), and either the structure below under the
 *  name of its file (40-count.so: `count`; dashes of the name are underscores), or functions called conf_setup and
 *  ext_init. Both are called once, in this order, when all plugins are loaded, and hooks are registered there:
 *
 *      EC_MODULE_EXPORT generic_module_infrastructure count = {{
 *          EC_MODULE_INIT(EC_MODULE_TYPE_SINGLETON, 0), "count.c", "Counts attempts",
 *          NULL, NULL, NULL, NULL, NULL, count_conf_setup, NULL, NULL, count_ext_init
 *      }};
 *
 *  Either may be NULL; what is not 0 stops the start. ext_init() gets EC_MODULE_INIT_INIT without
 *  EC_MODULE_INIT_PRIVILEGED, since privileges are gone by then, and in the end, unless the module is a singleton,
 *  EC_MODULE_INIT_DESTROY. There is no configuration to read: `transaction` and `output` are NULL. module_control() is
 *  not called.
 */
#ifndef MODULE_H
#define MODULE_H

#include <stddef.h>
#include <stdint.h>

#define EC_MODULE_EXPORT            __attribute__ ((visibility("default")))
#define EC_MODULE_API_VERSION       0x6d710008u         /* of this file, not of Momentum */
#define EC_MODULE_TYPE_GENERIC      0
#define EC_MODULE_TYPE_SINGLETON    1
#define EC_MODULE_INIT(type, flags) EC_MODULE_API_VERSION, (type) | (flags), NULL

#define EC_MODULE_INIT_MODE(flags)  ((flags) & 0xf)
#define EC_MODULE_INIT_INIT         1
#define EC_MODULE_INIT_POSTINIT     2
#define EC_MODULE_INIT_DESTROY      3
#define EC_MODULE_INIT_PRIVILEGED   0x10

typedef struct _generic_module_infrastructure generic_module_infrastructure;
typedef struct _ec_config_header ec_config_header;
typedef struct _string string;

typedef int  (*ModuleConfSetupFunc)(generic_module_infrastructure *self, int ignoreme);
typedef int  (*ModuleExtendedInitFunc)(generic_module_infrastructure *self, ec_config_header *transaction,
                                       string *output, int flags);
typedef void (*ControlHookFunc)(generic_module_infrastructure *self, string *response, const char *command, int xml);

typedef struct _shared_module_infrastructure_8 {
    uint32_t                module_api_version;     /* these three: EC_MODULE_INIT() */
    uint32_t                module_type;
    void                   *module_private;
    const char             *module_name;
    const char             *module_description;
    ControlHookFunc         module_control;
    void                  (*module_conf)(void);     /* these four: NULL */
    void                  (*module_ext_conf)(void);
    void                  (*module_init)(void);
    void                  (*module_post_init)(void);
    ModuleConfSetupFunc     module_config_setup;
    void                  (*module_enable)(void);   /* these two: NULL */
    void                  (*module_can_unload)(void);
    ModuleExtendedInitFunc  module_ext_init;
} shared_module_infrastructure_8;

struct _generic_module_infrastructure {
    shared_module_infrastructure_8 shared;
};

#define module_private_data shared.module_private   /* self->module_private_data: the module's own */

#endif
