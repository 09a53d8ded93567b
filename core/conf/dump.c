/*
 * Model: the same walk over an option table for every form; a form differs in how it writes one
 * option. Nothing here knows an option by name, except that the dump leaves out what a listener's
 * transport does not have and shows core.include as a comment (what it named stands in the dump
 * itself), so that a dump can be loaded again.
 *
 * In the commented file "# " begins a sentence and "#" an option with its default, so that taking
 * one character away sets it.
 */
#include "conf/dump.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "conf/option.h"
#include "conf/plugins.h"
#include "conf/store.h"

#define STRIDE         sizeof(struct roda_option)
#define COLUMNS        80
#define VALUE_COLUMN   36
#define TEXT_BYTES_MAX (OPTION_TEXT_BYTES + 512)

struct writer {
    conf_line_fn *fn;
    void *arg;
    const struct conf *conf;
};

static void emit(const struct writer *writer, const char *fmt, ...) RODA_PRINTF(2, 3);
static void emit(const struct writer *writer, const char *fmt, ...)
{
    char line[TEXT_BYTES_MAX];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    writer->fn(writer->arg, line);
}

/* ---- the dump --------------------------------------------------------------------------- */

/* One line of the dump. What would be too long for the reader gets its place on a line before. */
static void dump_line(const struct writer *writer, const char *key, const char *value,
                      const char *place)
{
    char line[TEXT_BYTES_MAX];
    int len = snprintf(line, sizeof(line), "%s =%s%s", key, value[0] ? " " : "", value);
    int pad = len < VALUE_COLUMN ? VALUE_COLUMN - len : 1;

    if (len + pad + 2 + (int)strlen(place) <= CONF_LINE_BYTES_MAX) {
        emit(writer, "%s%*s; %s", line, pad, "", place);
        return;
    }
    emit(writer, "; %s", place);
    emit(writer, "%s", line);
}

static void dump_value(const struct writer *writer, const struct roda_option *option,
                       const char *prefix, const void *base, const char *place)
{
    const void *field = (const char *)base + option->offset;
    char value[OPTION_TEXT_BYTES], key[512];
    struct roda_list list;

    (void)snprintf(key, sizeof(key), "%s%s", prefix, option->name);
    option_format(option, field, value, sizeof(value));
    if (option->type != RODA_T_LIST || strlen(key) + strlen(value) + 3 <= CONF_LINE_BYTES_MAX) {
        dump_line(writer, key, value, place);
        return;
    }
    memcpy(&list, field, sizeof(list));
    for (size_t i = 0; i < list.n; i++)
        dump_line(writer, key, list.items[i].ptr, place);
}

static const char *place_text(const struct store_entry *entry, const char *otherwise, char *buf,
                              size_t size)
{
    if (entry)
        (void)snprintf(buf, size, "%s:%u", entry->place.file, entry->place.line);
    else
        (void)snprintf(buf, size, "%s", otherwise);
    return buf;
}

/* Whether an option of a listener means nothing for its transport. */
static bool is_idle(const struct conf_listener *listener, const char *key)
{
    bool of_unix = strcmp(key, "path") == 0 || strcmp(key, "mode") == 0;
    bool of_ip = strcmp(key, "address") == 0 || strcmp(key, "port") == 0;

    return listener->transport == CONF_UNIX ? of_ip : of_unix;
}

struct table {
    const struct roda_option *options;
    size_t stride;
    const char *prefix;
    uint32_t only_flags;
    bool only_set;                        /* leave out what the section does not name */
    const struct conf_listener *listener; /* or NULL */
};

static void dump_table(const struct writer *writer, const struct table *table, const char *section,
                       const void *base)
{
    const struct store_section *found = store_section_find(writer->conf->store, section);
    const struct roda_option *option;
    char key[512], place[512];

    for (size_t i = 0; (option = option_at(table->options, table->stride, i)); i++) {
        const struct store_entry *entry;

        (void)snprintf(key, sizeof(key), "%s%s", table->prefix, option->name);
        entry = store_entry_find(found, key);
        if ((option->flags & table->only_flags) != table->only_flags ||
            (table->only_set && !entry) || (table->listener && is_idle(table->listener, key)))
            continue;
        place_text(entry, "default", place, sizeof(place));
        dump_value(writer, option, table->prefix, base, place);
    }
}

static void dump_section(const struct writer *writer, enum sections_kind kind, const void *base)
{
    const struct table table = {sections[kind].options, STRIDE, "", 0, false, NULL};

    emit(writer, "[%s]", sections[kind].kind);
    dump_table(writer, &table, sections[kind].kind, base);
    emit(writer, "%s", "");
}

/* core.include is shown, but must not be read a second time. */
static void dump_core(const struct writer *writer)
{
    const struct roda_option *options = sections[SECTIONS_CORE].options, *option;
    const struct store_section *found =
        store_section_find(writer->conf->store, sections[SECTIONS_CORE].kind);
    char place[512], value[OPTION_TEXT_BYTES];

    emit(writer, "[%s]", sections[SECTIONS_CORE].kind);
    for (size_t i = 0; (option = option_at(options, STRIDE, i)); i++) {
        const struct store_entry *entry = store_entry_find(found, option->name);

        place_text(entry, "default", place, sizeof(place));
        if (writer->conf->core.include.n > 0 && strcmp(option->name, "include") == 0) {
            option_format(option, (const char *)&writer->conf->core + option->offset, value,
                          sizeof(value));
            emit(writer, "; %s = %s (%s; what it names stands here)", option->name, value, place);
            continue;
        }
        dump_value(writer, option, "", &writer->conf->core, place);
    }
    emit(writer, "%s", "");
}

static void dump_listener(const struct writer *writer, const struct conf_listener *listener)
{
    const struct table own = {sections[SECTIONS_LISTENER].options, STRIDE, "", 0, false, listener};
    const struct table limits =
        {sections[SECTIONS_LIMITS].options, STRIDE, "", RODA_OPTION_LISTENER, true, NULL};
    char section[512], prefix[512];

    (void)snprintf(section, sizeof(section), "%s %s", sections[SECTIONS_LISTENER].kind,
                   listener->name);
    emit(writer, "[%s]", section);
    dump_table(writer, &own, section, listener);
    dump_table(writer, &limits, section, &listener->limits);
    for (const struct store_fill *fill = writer->conf->store->fills; fill; fill = fill->next) {
        const struct table table = {fill->table,          fill->stride, prefix,
                                    RODA_OPTION_LISTENER, true,         NULL};
        const void *memory = plugins_override_find(fill, listener->name);

        (void)snprintf(prefix, sizeof(prefix), "%s.", fill->plugin);
        if (memory)
            dump_table(writer, &table, section, memory);
    }
    emit(writer, "%s", "");
}

static void dump_raw(const struct writer *writer, const char *section)
{
    const struct store_section *found = store_section_find(writer->conf->store, section);
    char place[512];

    for (const struct store_entry *entry = found->entries; entry; entry = entry->next) {
        if (!option_find(sections[SECTIONS_PLUGIN].options, STRIDE, entry->key))
            dump_line(writer, entry->key, entry->value,
                      place_text(entry, "", place, sizeof(place)));
    }
}

static void dump_fill(const struct writer *writer, const struct store_fill *fill,
                      const char *section)
{
    const struct table table = {fill->table, fill->stride, "", 0, false, NULL};

    dump_table(writer, &table, section, fill->memory);
}

static void dump_plugin(const struct writer *writer, const struct conf_plugin *plugin)
{
    const struct table generic = {sections[SECTIONS_PLUGIN].options, STRIDE, "", 0, false, NULL};
    const struct store_fill *fill = plugins_fill_find(writer->conf, plugin->name);
    char section[512];

    (void)snprintf(section, sizeof(section), "%s %s", sections[SECTIONS_PLUGIN].kind, plugin->name);
    emit(writer, "[%s]", section);
    dump_table(writer, &generic, section, plugin);
    if (fill)
        dump_fill(writer, fill, section);
    else
        dump_raw(writer, section);
    emit(writer, "%s", "");
}

/* A plugin that a listener's protocol loaded: it has no section, and gets one. */
static void dump_unnamed(const struct writer *writer, const struct store_fill *fill)
{
    const struct roda_option *generic = sections[SECTIONS_PLUGIN].options, *option;
    char section[512];

    for (size_t i = 0; i < writer->conf->n_plugins; i++) {
        if (strcmp(writer->conf->plugins[i].name, fill->plugin) == 0)
            return;
    }
    (void)snprintf(section, sizeof(section), "%s %s", sections[SECTIONS_PLUGIN].kind, fill->plugin);
    emit(writer, "[%s]", section);
    for (size_t i = 0; (option = option_at(generic, STRIDE, i)); i++)
        dump_line(writer, option->name, option->initial, "default");
    dump_fill(writer, fill, section);
    emit(writer, "%s", "");
}

void conf_dump(const struct conf *conf, conf_line_fn *fn, void *arg)
{
    const struct writer writer = {fn, arg, conf};

    emit(&writer, "; the configuration in effect, made from %s", conf->store->file.file);
    emit(&writer, "%s", "");
    dump_core(&writer);
    dump_section(&writer, SECTIONS_MESSAGES, &conf->messages);
    dump_section(&writer, SECTIONS_LIMITS, &conf->limits);
    for (size_t i = 0; i < conf->n_listeners; i++)
        dump_listener(&writer, &conf->listeners[i]);
    for (size_t i = 0; i < conf->n_plugins; i++)
        dump_plugin(&writer, &conf->plugins[i]);
    for (const struct store_fill *fill = conf->store->fills; fill; fill = fill->next)
        dump_unnamed(&writer, fill);
}

/* ---- sentences -------------------------------------------------------------------------- */

/* How much of text goes on a line of room bytes: whole words, at least one. */
static size_t line_bytes(const char *text, size_t room)
{
    size_t i, words = 0;

    for (i = 0; text[i]; i++) {
        if (text[i] != ' ')
            continue;
        if (i > room)
            break;
        words = i;
    }
    return i <= room || words == 0 ? i : words;
}

/* text in lines of at most COLUMNS, each with before. */
static void wrap(const struct writer *writer, const char *before, const char *text)
{
    size_t room = COLUMNS - strlen(before);

    while (*text) {
        size_t len = line_bytes(text, room);

        emit(writer, "%s%.*s", before, (int)len, text);
        text += len;
        text += strspn(text, " ");
    }
}

void conf_write_comment(const char *text, conf_line_fn *fn, void *arg)
{
    const struct writer writer = {fn, arg, NULL};

    wrap(&writer, "# ", text);
}

/* "size, 512 to 64k; also per listener" */
static void describe(const struct roda_option *option, char *buf, size_t size)
{
    char range[256];

    option_range(option, range, sizeof(range));
    (void)snprintf(buf, size, "%s%s%s%s%s",
                   option->type == RODA_T_CHOICE ? range : option_type_name(option->type),
                   option->type != RODA_T_CHOICE && range[0] ? ", " : "",
                   option->type != RODA_T_CHOICE ? range : "",
                   option->initial ? "" : "; must be given",
                   option->flags & RODA_OPTION_LISTENER ? "; also per listener" : "");
}

void conf_help_plugin(const struct conf_options *plugin, conf_line_fn *fn, void *arg)
{
    const struct writer writer = {fn, arg, NULL};
    const struct roda_option *option;
    char form[512];

    emit(&writer, "%s%s%s", plugin->name, plugin->summary ? ": " : "",
         plugin->summary ? plugin->summary : "");
    emit(&writer, "%s", "");
    emit(&writer, "[%s %s]", sections[SECTIONS_PLUGIN].kind, plugin->name);
    for (size_t i = 0; (option = option_at(plugin->table, plugin->stride, i)); i++) {
        if (option->initial)
            emit(&writer, "%s =%s%s", option->name, option->initial[0] ? " " : "", option->initial);
        else
            emit(&writer, "%s = (must be given)", option->name);
        wrap(&writer, "    ", option->help);
        describe(option, form, sizeof(form));
        emit(&writer, "    (%s)", form);
    }
    if (!option_at(plugin->table, plugin->stride, 0))
        emit(&writer, "    has no options of its own");
}

/* ---- the commented file ----------------------------------------------------------------- */

static bool is_listed(const char *const *keys, const char *key)
{
    if (!keys)
        return true;
    for (; *keys; keys++) {
        if (strcmp(*keys, key) == 0)
            return true;
    }
    return false;
}

static const char *set_value(const char *const *set, const char *key)
{
    for (; set && *set; set += 2) {
        if (strcmp(set[0], key) == 0)
            return set[1];
    }
    return NULL;
}

static void write_option(const struct writer *writer, const struct roda_option *option,
                         const char *set, bool plain_set)
{
    const char *value = set ? set : option->initial ? option->initial : "";
    char form[512], sentence[1024];

    describe(option, form, sizeof(form));
    (void)snprintf(sentence, sizeof(sentence), "%s (%s)", option->help, form);
    if (!plain_set)
        wrap(writer, "# ", sentence);
    emit(writer, "%s%s =%s%s", set ? "" : "#", option->name, value[0] ? " " : "", value);
}

void conf_write_example(const struct conf_example *example, const struct conf_options *options,
                        conf_line_fn *fn, void *arg)
{
    const struct writer writer = {fn, arg, NULL};
    const struct roda_option *option;

    if (example->about)
        wrap(&writer, "# ", example->about);
    if (example->header)
        emit(&writer, "[%s]", example->header);
    for (size_t i = 0; (option = option_at(options->table, options->stride, i)); i++) {
        const char *set = set_value(example->set, option->name);

        if (example->only_set ? set != NULL : is_listed(example->keys, option->name))
            write_option(&writer, option, set, example->only_set);
    }
}

/* ---- the manual ------------------------------------------------------------------------- */

/* What scdoc would take as markup is escaped. */
static const char *plain(const char *text, char *buf, size_t size)
{
    size_t used = 0;

    for (; *text && used + 2 < size; text++) {
        if (strchr("*_\\`[|#", *text))
            buf[used++] = '\\';
        buf[used++] = *text;
    }
    buf[used] = '\0';
    return buf;
}

/* "Default: 4k. 512 to 64k. A listener may have its own." */
static void reference_facts(const struct roda_option *option, char *buf, size_t size)
{
    char range[256];
    const char *initial = option->initial;

    option_range(option, range, sizeof(range));
    if (range[0] == 'a' && option->type != RODA_T_CHOICE)
        range[0] = 'A';
    (void)snprintf(buf, size, "%s%s%s%s%s%s%s",
                   !initial          ? "Must be given"
                   : initial[0] == 0 ? "Default: empty"
                                     : "Default: ",
                   initial ? initial : "", ".", range[0] ? " " : "",
                   option->type == RODA_T_CHOICE ? "One of: " : "", range, range[0] ? "." : "");
    if (option->flags & RODA_OPTION_LISTENER)
        (void)snprintf(buf + strlen(buf), size - strlen(buf), " A listener may have its own.");
}

static void write_reference_option(const struct writer *writer, const struct roda_option *option)
{
    char sentence[1024], escaped[2048];

    emit(writer, "*%s* = _%s_", option->name, option_type_name(option->type));
    (void)snprintf(sentence, sizeof(sentence), "%s.", option->help);
    if (islower((unsigned char)sentence[0]))
        sentence[0] = (char)toupper((unsigned char)sentence[0]);
    wrap(writer, "\t", plain(sentence, escaped, sizeof(escaped)));
    emit(writer, "%s", "");
    reference_facts(option, sentence, sizeof(sentence));
    wrap(writer, "\t", plain(sentence, escaped, sizeof(escaped)));
    emit(writer, "%s", "");
}

static void write_reference_table(const struct writer *writer, const struct roda_option *table,
                                  size_t stride)
{
    const struct roda_option *option;

    for (size_t i = 0; (option = option_at(table, stride, i)); i++)
        write_reference_option(writer, option);
}

void conf_write_reference(const struct conf_options *plugins, size_t n_plugins, conf_line_fn *fn,
                          void *arg)
{
    const struct writer writer = {fn, arg, NULL};
    char escaped[1024];

    for (size_t i = 0; i < SECTIONS_N; i++) {
        emit(&writer, "# SECTION [%s%s]", sections[i].kind, sections[i].named ? " NAME" : "");
        emit(&writer, "%s", "");
        wrap(&writer, "", plain(sections[i].about, escaped, sizeof(escaped)));
        emit(&writer, "%s", "");
        write_reference_table(&writer, sections[i].options, STRIDE);
    }
    for (size_t i = 0; i < n_plugins; i++) {
        emit(&writer, "# SECTION [%s %s]", sections[SECTIONS_PLUGIN].kind, plugins[i].name);
        emit(&writer, "%s", "");
        (void)snprintf(escaped, sizeof(escaped), "%s.",
                       plugins[i].summary ? plugins[i].summary : "Has no summary");
        wrap(&writer, "", escaped);
        emit(&writer, "%s", "");
        if (!option_at(plugins[i].table, plugins[i].stride, 0)) {
            emit(&writer, "Has no options of its own.");
            emit(&writer, "%s", "");
        }
        write_reference_table(&writer, plugins[i].table, plugins[i].stride);
    }
}
