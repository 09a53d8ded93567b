/*
 * Model: inih splits a line into section, key and value; this reader decides which lines inih gets
 * to see, and knows their numbers. It hands out one line at a time, and inih calls the handler
 * for it before it asks for the next, so reader->place.line is always the line of the handler's
 * entry. A line is handed out only after it was found whole and good:
 *
 *     blank, comment            skipped
 *     too long, not text, ...   told and skipped
 *     [section]                 noted here (inih tells of a section only by its keys), handed out
 *     key = value               handed out
 *     anything else             told and skipped
 *
 * Leading blanks are cut off, so nothing is ever a continuation of the line before. The limits of
 * the packaged inih (199 bytes a line with its end, 49 a section) are checked before it could cut.
 * Keys below a section that was refused belong nowhere and are skipped without a word: the
 * section's error says enough.
 *
 * Files are read with plain stdio, which is nowhere else allowed in this layer: the configuration
 * is read before any worker, ring or plugin exists.
 */
#include "conf/reader.h"

#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "conf/conf.h"

struct reader {
    struct conf_store *store;
    struct roda_conf_errors *errors;
    struct conf_place place; /* of the line handed out last */
    const char *rest, *end;
    struct store_section *section; /* NULL: keys have no section, or a refused one */
    bool section_seen;
    int result;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void tell(struct reader *reader, enum conf_severity severity, const char *fmt, ...)
    RODA_PRINTF(3, 4);
static void tell(struct reader *reader, enum conf_severity severity, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    conf_errors_add_list(reader->errors, severity, reader->place, NULL, NULL, NULL, fmt, args);
    va_end(args);
}

static struct roda_str trim(struct roda_str text)
{
    while (text.len && is_blank(text.ptr[0])) {
        text.ptr++;
        text.len--;
    }
    while (text.len && is_blank(text.ptr[text.len - 1]))
        text.len--;
    return text;
}

/* The first of what in text, or where an inline comment (a blank and ';') begins, or its end. */
static size_t find_or_comment(struct roda_str text, const char *what)
{
    for (size_t i = 0; i < text.len; i++) {
        if (strchr(what, text.ptr[i]))
            return i;
        if (i > 0 && text.ptr[i] == ';' && is_blank(text.ptr[i - 1]))
            return i;
    }
    return text.len;
}

static bool found_at(struct roda_str text, size_t i, char c)
{
    return i < text.len && text.ptr[i] == c;
}

/* ---- one line --------------------------------------------------------------------------- */

/* The next line without its end and blanks around it. */
static bool line_take(struct reader *reader, struct roda_str *ret_line)
{
    const char *newline;
    struct roda_str line;

    if (reader->rest == reader->end)
        return false;
    newline = memchr(reader->rest, '\n', (size_t)(reader->end - reader->rest));
    line.ptr = reader->rest;
    line.len = (size_t)((newline ? newline : reader->end) - reader->rest);
    reader->rest = newline ? newline + 1 : reader->end;
    reader->place.line++;
    if (line.len && line.ptr[line.len - 1] == '\r')
        line.len--;
    *ret_line = trim(line);
    return true;
}

static bool line_is_text(struct reader *reader, struct roda_str line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            tell(reader, CONF_ERROR, "a control character (0x%02x) in the line", c);
            return false;
        }
    }
    switch (text_check(line, RODA_TEXT_LINE)) {
    case 0:
        return true;
    case -EILSEQ:
        tell(reader, CONF_ERROR, "not UTF-8; save the file as UTF-8 text");
        return false;
    default:
        tell(reader, CONF_ERROR, "a character that is not allowed in the line");
        return false;
    }
}

/* The section's name in its two words, each NUL-terminated in buf; false: told. */
static bool section_words(struct reader *reader, struct roda_str name,
                          char buf[CONF_SECTION_BYTES_MAX + 1], const char **ret_label)
{
    char *blank;

    memcpy(buf, name.ptr, name.len);
    buf[name.len] = '\0';
    blank = strpbrk(buf, " \t");
    *ret_label = "";
    if (!blank)
        return true;
    *blank++ = '\0';
    blank += strspn(blank, " \t");
    *ret_label = blank;
    if (strpbrk(blank, " \t")) {
        tell(reader, CONF_ERROR, "[%s %s]: a section's name has no blanks", buf, blank);
        return false;
    }
    return true;
}

static bool section_note(struct reader *reader, struct roda_str name)
{
    char buf[CONF_SECTION_BYTES_MAX + 1], whole[CONF_SECTION_BYTES_MAX + 2];
    const char *label;

    if (!section_words(reader, name, buf, &label))
        return false;
    (void)snprintf(whole, sizeof(whole), "%s%s%s", buf, label[0] ? " " : "", label);
    reader->section = store_section_find(reader->store, whole);
    if (reader->section)
        return true;
    if (reader->store->n_sections >= STORE_SECTIONS_MAX) {
        tell(reader, CONF_ERROR, "more than %u sections", STORE_SECTIONS_MAX);
        return false;
    }
    reader->section = store_section_add(reader->store, buf, label, reader->place);
    if (!reader->section)
        reader->result = -ENOMEM;
    return reader->section != NULL;
}

/* Whether inih may see the line "[...". */
static bool line_section(struct reader *reader, struct roda_str line)
{
    struct roda_str inside = {line.ptr + 1, line.len - 1}, name, after;
    size_t close = find_or_comment(inside, "]");

    reader->section = NULL;
    reader->section_seen = true;
    if (!found_at(inside, close, ']')) {
        tell(reader, CONF_ERROR, "the section has no \"]\"");
        return false;
    }
    name = trim((struct roda_str){inside.ptr, close});
    after = trim((struct roda_str){inside.ptr + close + 1, inside.len - close - 1});
    if (close > CONF_SECTION_BYTES_MAX) {
        tell(reader, CONF_ERROR, "the section's name is longer than %d bytes",
             CONF_SECTION_BYTES_MAX);
        return false;
    }
    if (name.len == 0) {
        tell(reader, CONF_ERROR, "the section has no name");
        return false;
    }
    if (after.len && after.ptr[0] != ';' && after.ptr[0] != '#') {
        tell(reader, CONF_ERROR, "text after the section's \"]\"; write it in a line of its own");
        return false;
    }
    return section_note(reader, name);
}

static void warn_of_quotes(struct reader *reader, struct roda_str value)
{
    char quote = value.len ? value.ptr[0] : '\0';
    size_t comment = find_or_comment(value, "");

    if ((quote != '"' && quote != '\'') || comment == value.len)
        return;
    if (memchr(value.ptr + 1, quote, comment - 1))
        return;
    tell(reader, CONF_WARNING,
         "a comment begins at \" ;\": quotes do not protect it, the value ends there");
}

/* Whether inih may see the line, which must be "key = value". */
static bool line_pair(struct reader *reader, struct roda_str line)
{
    size_t sign = find_or_comment(line, "=:");

    if (found_at(line, sign, ':')) {
        tell(reader, CONF_ERROR, "\":\" after the key; write key = value");
        return false;
    }
    if (!found_at(line, sign, '=')) {
        tell(reader, CONF_ERROR, "no \"=\" in the line; write key = value");
        return false;
    }
    if (sign == 0) {
        tell(reader, CONF_ERROR, "no key before the \"=\"");
        return false;
    }
    if (!reader->section_seen) {
        tell(reader, CONF_ERROR, "a key before the first [section]");
        return false;
    }
    warn_of_quotes(reader, trim((struct roda_str){line.ptr + sign + 1, line.len - sign - 1}));
    return reader->section != NULL;
}

static bool line_is_good(struct reader *reader, struct roda_str line)
{
    if (line.len == 0 || line.ptr[0] == '#' || line.ptr[0] == ';')
        return false;
    if (line.len > CONF_LINE_BYTES_MAX) {
        if (line.ptr[0] == '[') {
            reader->section = NULL;
            reader->section_seen = true;
        }
        tell(reader, CONF_ERROR, "line is longer than %d bytes; repeat the key to add to a list",
             CONF_LINE_BYTES_MAX);
        return false;
    }
    if (!line_is_text(reader, line))
        return false;
    return line.ptr[0] == '[' ? line_section(reader, line) : line_pair(reader, line);
}

/* ---- inih's two callbacks --------------------------------------------------------------- */

static char *read_line(char *buf, int size, void *stream)
{
    struct reader *reader = stream;
    struct roda_str line;

    while (reader->result == 0 && line_take(reader, &line)) {
        if (!line_is_good(reader, line))
            continue;
        if (line.len + 2 > (size_t)size) { /* an inih with a shorter line than Debian's */
            tell(reader, CONF_ERROR, "line is longer than the %d bytes this inih takes", size - 2);
            continue;
        }
        memcpy(buf, line.ptr, line.len);
        memcpy(buf + line.len, "\n", 2);
        return buf;
    }
    return NULL;
}

static int take_entry(void *user, const char *section, const char *name, const char *value)
{
    struct reader *reader = user;

    (void)section;
    if (reader->result == 0)
        reader->result =
            store_entry_add(reader->store, reader->section, name, value, reader->place);
    return reader->result == 0;
}

/* ---- whole files ------------------------------------------------------------------------ */

int reader_text(struct conf_store *store, struct conf_place place, const char *text, size_t len,
                struct roda_conf_errors *errors)
{
    struct reader reader = {.store = store, .errors = errors, .place = place};
    const char *nul = memchr(text, '\0', len);
    int result;

    reader.place.line = 0;
    reader.rest = text;
    reader.end = text + len;
    if (len >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0)) {
        tell(&reader, CONF_ERROR, "is UTF-16; save the file as UTF-8 text");
        return 0;
    }
    if (nul) {
        for (const char *at = text; (at = memchr(at, '\n', (size_t)(nul - at))); at++)
            reader.place.line++;
        reader.place.line++;
        tell(&reader, CONF_ERROR, "a NUL byte: this is no text file, or it is damaged");
        return 0;
    }
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        reader.rest += 3;
    result = ini_parse_stream(read_line, &reader, take_entry, &reader);
    if (result != 0 && reader.result == 0) {
        /* inih and line_is_good() disagree: say so rather than lose a line. */
        tell(&reader, CONF_ERROR, "inih does not understand the file (its line %d)", result);
    }
    return reader.result;
}

/* 0, or a positive errno. */
static int read_all(FILE *file, char **ret_text, size_t *ret_len)
{
    char *text = memory_alloc(READER_FILE_BYTES_MAX + 1);
    size_t len;

    if (!text)
        return ENOMEM;
    errno = 0;
    len = fread(text, 1, READER_FILE_BYTES_MAX + 1, file);
    if (ferror(file) || len > READER_FILE_BYTES_MAX) {
        int result = ferror(file) ? errno : EFBIG;
        memory_free(text);
        return result ? result : EIO;
    }
    *ret_text = text;
    *ret_len = len;
    return 0;
}

static void tell_unreadable(struct roda_conf_errors *errors, struct conf_place place, int error)
{
    const char *reason;

    switch (error) {
    case ENOENT:
        reason = "no such file";
        break;
    case EISDIR:
        reason = "is a directory; name the file in it";
        break;
    case EACCES:
        reason = "permission denied; the user that starts the broker must be able to read it";
        break;
    case EFBIG:
        reason = "larger than 256 kB; is it a configuration?";
        break;
    default:
        reason = strerror(error);
    }
    conf_errors_add(errors, CONF_ERROR, place, NULL, NULL, NULL, "%s", reason);
}

int reader_file(struct conf_store *store, struct conf_place place, struct roda_conf_errors *errors)
{
    FILE *file = fopen(place.file, "re");
    char *text = NULL;
    size_t len = 0;
    int error = file ? read_all(file, &text, &len) : errno;

    if (file)
        (void)fclose(file);
    else if (!error)
        error = EIO;
    if (error == ENOMEM)
        return -ENOMEM;
    if (error) {
        tell_unreadable(errors, place, error);
        return -error;
    }
    error = reader_text(store, place, text, len, errors);
    memory_free(text);
    return error;
}
