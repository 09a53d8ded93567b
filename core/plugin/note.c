#include "plugin/note.h"

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "roda/plugin.h"

/*
 * A plugin of another ABI must not run a single instruction, constructors included, so its ABI is
 * looked up in the file: program headers of type PT_NOTE, entries named "roda". Every offset is
 * checked against what could be read; the file is read with stdio, at start-up only.
 */

#define NOTE_BYTES_MAX 4096u

#if __SIZEOF_POINTER__ == 8
typedef Elf64_Ehdr elf_header;
typedef Elf64_Phdr elf_segment;
#define ELF_CLASS ELFCLASS64
#else
typedef Elf32_Ehdr elf_header;
typedef Elf32_Phdr elf_segment;
#define ELF_CLASS ELFCLASS32
#endif

static bool read_at(FILE *file, uint64_t offset, void *buf, size_t size)
{
    return offset <= INT32_MAX && !fseek(file, (long)offset, SEEK_SET) &&
           fread(buf, 1, size, file) == size;
}

/* Entries are (name size, desc size, type, name, desc), each padded to 4. */
static bool find_note(const char *bytes, size_t size, uint32_t *ret_abi, uint32_t *ret_size)
{
    size_t at = 0;

    while (at + 12 <= size) {
        uint32_t head[3];
        memcpy(head, bytes + at, sizeof head);
        size_t name = at + 12, desc, next;
        if (head[0] > size || head[1] > size)
            return false;
        desc = name + ((head[0] + 3u) & ~3u);
        next = desc + ((head[1] + 3u) & ~3u);
        if (next > size || next <= at)
            return false;
        if (head[2] == RODA_NOTE_TYPE && head[0] == sizeof RODA_NOTE_NAME && head[1] >= 8 &&
            !memcmp(bytes + name, RODA_NOTE_NAME, sizeof RODA_NOTE_NAME)) {
            memcpy(ret_abi, bytes + desc, 4);
            memcpy(ret_size, bytes + desc + 4, 4);
            return true;
        }
        at = next;
    }
    return false;
}

int note_search(FILE *file, uint32_t *ret_abi, uint32_t *ret_size)
{
    char notes[NOTE_BYTES_MAX];
    elf_header header;

    if (!read_at(file, 0, &header, sizeof header) || memcmp(header.e_ident, ELFMAG, SELFMAG) ||
        header.e_ident[EI_CLASS] != ELF_CLASS || header.e_type != ET_DYN ||
        header.e_phentsize != sizeof(elf_segment))
        return -ENOEXEC;
    for (uint32_t i = 0; i < header.e_phnum; i++) {
        elf_segment segment;
        if (!read_at(file, header.e_phoff + (uint64_t)i * sizeof segment, &segment, sizeof segment))
            return -ENOEXEC;
        if (segment.p_type != PT_NOTE || segment.p_filesz > sizeof notes)
            continue;
        if (!read_at(file, segment.p_offset, notes, segment.p_filesz))
            return -ENOEXEC;
        if (find_note(notes, segment.p_filesz, ret_abi, ret_size))
            return 0;
    }
    return -ENODATA;
}

int note_read(const char *path, uint32_t *ret_abi, uint32_t *ret_size)
{
    FILE *file = fopen(path, "re");
    int r;

    if (!file)
        return -errno;
    r = note_search(file, ret_abi, ret_size);
    fclose(file);
    return r;
}
