/* The ELF note: found where it is, and nothing believed that the file does not hold. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "plugin/note.h"
#include "roda/plugin.h"

#define SEGMENTS_MAX 3u

struct image { /* a small shared object: a header, segments, notes */
    Elf64_Ehdr header;
    Elf64_Phdr segments[SEGMENTS_MAX];
    char notes[6000];
};

static struct image image;
static size_t image_len;

static void put_note(uint32_t name_size, uint32_t desc_size, uint32_t type, const char *name,
                     const void *desc)
{
    uint32_t head[3] = {name_size, desc_size, type};
    char *base = (char *)&image;

    memcpy(base + image_len, head, sizeof head);
    image_len += sizeof head;
    memcpy(base + image_len, name, strnlen(name, name_size));
    image_len += (name_size + 3) & ~3u;
    memcpy(base + image_len, desc, desc_size);
    image_len += (desc_size + 3) & ~3u;
}

static void put_ours(uint32_t abi, uint32_t size)
{
    uint32_t desc[2] = {abi, size};

    put_note(5, 8, RODA_NOTE_TYPE, "roda", desc);
}

/* An image whose segment 1 holds the notes that are put next. */
static int begin(void **state)
{
    (void)state;
    memset(&image, 0, sizeof image);
    memcpy(image.header.e_ident, ELFMAG, SELFMAG);
    image.header.e_ident[EI_CLASS] = ELFCLASS64;
    image.header.e_type = ET_DYN;
    image.header.e_phoff = offsetof(struct image, segments);
    image.header.e_phentsize = sizeof(Elf64_Phdr);
    image.header.e_phnum = SEGMENTS_MAX;
    image.segments[0].p_type = PT_LOAD;
    image.segments[0].p_filesz = 16;
    image_len = offsetof(struct image, notes);
    return 0;
}

static void end_notes(unsigned segment, size_t from)
{
    image.segments[segment].p_type = PT_NOTE;
    image.segments[segment].p_offset = from;
    image.segments[segment].p_filesz = image_len - from;
}

static int search(size_t len, uint32_t *ret_abi, uint32_t *ret_size)
{
    FILE *file = fmemopen(&image, len ? len : 1, "rb");
    int r;

    assert_non_null(file);
    r = note_search(file, ret_abi, ret_size);
    fclose(file);
    return r;
}

static void expect(int expected)
{
    uint32_t abi = 77, size = 78;

    assert_int_equal(search(image_len, &abi, &size), expected);
    assert_int_equal(abi, expected ? 77 : 0x10002);
    assert_int_equal(size, expected ? 78 : 345);
}

static void ours_is_found(void **state)
{
    (void)state;
    put_ours(0x10002, 345);
    end_notes(1, offsetof(struct image, notes));
    expect(0);
}

static void ours_is_found_behind_others(void **state)
{
    (void)state;
    size_t from = image_len;
    put_note(4, 20, 3, "GNU", "a build id of 20 b..");
    put_note(5, 3, RODA_NOTE_TYPE, "soda", "abc");
    put_note(0, 0, 0, "", "");
    end_notes(1, from);
    expect(-ENODATA);
    from = image_len;
    put_note(6, 8, RODA_NOTE_TYPE, "rodan", "12345678");
    put_note(5, 8, RODA_NOTE_TYPE + 1, "roda", "12345678");
    put_note(5, 4, RODA_NOTE_TYPE, "roda", "1234"); /* too short to be ours */
    put_ours(0x10002, 345);
    end_notes(2, from);
    expect(0);
}

static void what_is_no_shared_object_is_refused(void **state)
{
    (void)state;
    put_ours(0x10002, 345);
    end_notes(1, offsetof(struct image, notes));
    image.header.e_type = ET_EXEC;
    expect(-ENOEXEC);
    image.header.e_type = ET_DYN;
    image.header.e_ident[EI_CLASS] = ELFCLASS32;
    expect(-ENOEXEC);
    image.header.e_ident[EI_CLASS] = ELFCLASS64;
    image.header.e_phentsize++;
    expect(-ENOEXEC);
    image.header.e_phentsize--;
    image.header.e_ident[0]++;
    expect(-ENOEXEC);
    image.header.e_ident[0]--;
    image.header.e_phoff = UINT64_MAX - 10;
    expect(-ENOEXEC);
    image.header.e_phoff = INT32_MAX;
    expect(-ENOEXEC);
    image.header.e_phoff = offsetof(struct image, segments);
    image.header.e_phnum = 1;
    expect(-ENODATA);
    image.header.e_phnum = UINT16_MAX; /* found before the end of them is missed */
    expect(0);
    image.segments[1].p_offset = UINT64_MAX - 3;
    expect(-ENOEXEC);
}

static void every_cut_is_noticed(void **state)
{
    uint32_t abi = 77, size = 78;

    (void)state;
    put_note(4, 4, 3, "GNU", "abcd");
    put_ours(0x10002, 345);
    end_notes(1, offsetof(struct image, notes));
    for (size_t len = 0; len < image_len; len++)
        assert_int_equal(search(len, &abi, &size), -ENOEXEC);
    assert_int_equal(abi, 77);
    assert_int_equal(size, 78);
}

static void sizes_that_lie_are_not_followed(void **state)
{
    static const uint32_t lies[] = {13, 4096, 0x7fffffff, 0xfffffffd, 0xffffffff};

    (void)state;
    size_t from = image_len;
    put_note(4, 4, 3, "GNU", "abcd");
    put_ours(0x10002, 345);
    end_notes(1, from);
    expect(0);
    for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++)
        for (unsigned field = 0; field < 2; field++) {
            uint32_t right = 4;
            memcpy((char *)&image + from + 4 * field, &lies[i], 4);
            expect(-ENODATA);
            memcpy((char *)&image + from + 4 * field, &right, 4);
        }
    image.segments[1].p_filesz = 5000; /* more notes than any plugin has: not looked at */
    image_len = sizeof image;
    expect(-ENODATA);
}

static void files_that_cannot_be_read(void **state)
{
    uint32_t abi, size;

    (void)state;
    assert_int_equal(note_read("/nowhere/at/all.so", &abi, &size), -ENOENT);
    assert_int_equal(note_read("/tmp", &abi, &size), -ENOEXEC);
    assert_int_equal(note_read("/dev/null", &abi, &size), -ENOEXEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, begin)
        TEST(ours_is_found),
        TEST(ours_is_found_behind_others),
        TEST(what_is_no_shared_object_is_refused),
        TEST(every_cut_is_noticed),
        TEST(sizes_that_lie_are_not_followed),
        TEST(files_that_cannot_be_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
