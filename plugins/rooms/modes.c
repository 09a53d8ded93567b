#include "rooms.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/*
 * MODE: the text is a sign and a letter, the subject whom or what it is about.
 *
 *   o v          rank operator or voice, to a nick: by an owner; by an operator
 *   b            ban, of a nick or of a mask NICK@HOST with * and ?
 *   m i t s      moderated, invite only, topic locked, secret
 *   k            a key, which is the subject
 *
 * Everything is decided when the message arrives at the home, before it gets its number, since a
 * number that was taken cannot be refused; what changes is changed when it leaves the lane. Between
 * the two another change may have come first: then this one changes nothing, but is shown, as
 * everybody's copy of the room changes by what is shown.
 *
 * Masks, keys and topics are kept by keeping the messages that set them.
 */

enum { BANS_MAX = 100, MASK_BYTES_MAX = 128, KEY_BYTES_MAX = 64 };

struct change {
    int on;
    char letter;
};

static const struct {
    char letter;
    uint32_t bit;
} flags[] = {
    {'m', RODA_ROOM_MODERATED},    {'i', RODA_ROOM_INVITE_ONLY}, {'k', RODA_ROOM_KEY},
    {'t', RODA_ROOM_TOPIC_LOCKED}, {'s', RODA_ROOM_SECRET},
};

static uint32_t bit_of(char letter)
{
    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
        if (flags[i].letter == letter)
            return flags[i].bit;
    return 0;
}

static int parse(const struct roda_msg *msg, struct change *ret_change)
{
    struct roda_str text = msg->text;

    if (text.len != 2 || (text.ptr[0] != '+' && text.ptr[0] != '-'))
        return -EINVAL;
    if (!bit_of(text.ptr[1]) && text.ptr[1] != 'o' && text.ptr[1] != 'v' && text.ptr[1] != 'b')
        return -EINVAL;
    *ret_change = (struct change){.on = text.ptr[0] == '+', .letter = text.ptr[1]};
    return 0;
}

uint32_t mode_bits(uint32_t modes, const struct roda_msg *msg)
{
    struct change change;

    if (parse(msg, &change))
        return modes;
    return change.on ? modes | bit_of(change.letter) : modes & ~bit_of(change.letter);
}

/* ---- masks ----------------------------------------------------------------------------------- */

/* Both folded. '?' is one character, not one byte. */
static int matches(struct roda_str mask, struct roda_str text)
{
    size_t m = 0, t = 0, star = SIZE_MAX, star_text = 0;

    while (t < text.len) {
        if (m < mask.len && mask.ptr[m] == '*') {
            star = ++m;
            star_text = t;
        } else if (m < mask.len && mask.ptr[m] == '?') {
            m++;
            for (t++; t < text.len && ((unsigned char)text.ptr[t] & 0xc0) == 0x80;)
                t++;
        } else if (m < mask.len && mask.ptr[m] == text.ptr[t]) {
            m++;
            t++;
        } else if (star != SIZE_MAX) { /* let the last star take one more */
            m = star;
            t = ++star_text;
        } else {
            return 0;
        }
    }
    while (m < mask.len && mask.ptr[m] == '*')
        m++;
    return m == mask.len;
}

static int fold(struct roda_str text, char *buf, size_t size, struct roda_str *ret_folded)
{
    int len = roda_text_fold(text, buf, size);

    if (len < 0)
        return len;
    *ret_folded = (struct roda_str){buf, (size_t)len};
    return 0;
}

int mode_banned(const struct home *home, const struct roda_person *person)
{
    struct roda_str nick = roda_person_get(person, RODA_PERSON_NICK);
    struct roda_str host = roda_person_get(person, RODA_PERSON_HOST);
    char address[600], folded[2 * sizeof(address)], mask[4 * MASK_BYTES_MAX];
    struct roda_str who, pattern;
    size_t nick_len;
    int len;

    if (!home->n_bans || nick.len + 1 + host.len > sizeof(address))
        return 0;
    memcpy(address, nick.ptr, nick.len);
    address[nick.len] = '@';
    memcpy(address + nick.len + 1, host.ptr, host.len);
    len = roda_text_fold((struct roda_str){address, nick.len}, folded, sizeof(folded));
    if (len < 0 ||
        fold((struct roda_str){address, nick.len + 1 + host.len}, folded, sizeof(folded), &who))
        return 0;
    nick_len = (size_t)len;
    for (uint32_t i = 0; i < home->n_bans; i++) {
        if (fold(home->bans[i]->subject, mask, sizeof(mask), &pattern))
            continue;
        if (matches(pattern, memchr(pattern.ptr, '@', pattern.len)
                                 ? who
                                 : (struct roda_str){who.ptr, nick_len}))
            return 1;
    }
    return 0;
}

/* The place of a ban, or n_bans. */
static uint32_t ban_find(const struct home *home, struct roda_str mask)
{
    char a[4 * MASK_BYTES_MAX], b[4 * MASK_BYTES_MAX];
    struct roda_str wanted, had;
    uint32_t i = 0;

    if (fold(mask, a, sizeof(a), &wanted))
        return home->n_bans;
    for (; i < home->n_bans; i++)
        if (!fold(home->bans[i]->subject, b, sizeof(b), &had) && had.len == wanted.len &&
            !memcmp(had.ptr, wanted.ptr, had.len))
            break;
    return i;
}

static int bans_reserve(struct roda_ctx *x, struct home *home)
{
    uint32_t capacity = home->bans_capacity + 4;
    struct roda_msg **bans;

    if (home->n_bans < home->bans_capacity)
        return 0;
    bans = roda_realloc(x, home->bans, capacity * sizeof(struct roda_msg *));
    if (!bans)
        return -ENOMEM;
    home->bans = bans;
    home->bans_capacity = capacity;
    return 0;
}

/* ---- deciding -------------------------------------------------------------------------------- */

static int is_nick(const struct roda_person *person, const struct name *nick)
{
    struct name has;

    return !name_fold(roda_person_get(person, RODA_PERSON_NICK), &has) && nick->len == has.len &&
           !memcmp(nick->text, has.text, has.len);
}

/* While somebody changes his nick, the directory finds him by both; a room knows one at a time. */
struct home_member *mode_target(struct roda_ctx *x, const struct home *home, struct roda_str nick,
                                int when)
{
    roda_conn_id conn = 0;
    struct roda_person *person = directory_person(directory_of(x), nick, &conn);
    struct home_member *member = person ? members_find(&home->members, conn) : NULL;
    struct name wanted;

    roda_person_unref(person);
    if (!member || name_fold(nick, &wanted))
        return NULL;
    if (when == TARGET_NOW)
        return is_nick(member->person, &wanted) ? member : NULL;
    return !member->leaving && is_nick(event_person(home, member), &wanted) ? member : NULL;
}

static uint32_t rank_of(char letter)
{
    return letter == 'o' ? RODA_RANK_OPERATOR : RODA_RANK_VOICE;
}

static uint32_t check_rank(const struct change *change, const struct home_member *target,
                           const struct home_member *actor, const char **ret_text)
{
    if (!target) {
        *ret_text = "that person is not in the room";
        return RODA_E_TARGET;
    }
    if (target->rank == RODA_RANK_OWNER && target != actor) {
        *ret_text = "that person owns the room";
        return RODA_E_RANK;
    }
    if (change->on ? target->rank >= rank_of(change->letter)
                   : target->rank != rank_of(change->letter))
        return RODA_E_ALREADY;
    return 0;
}

static uint32_t check_ban(struct roda_ctx *x, struct home *home, const struct change *change,
                          struct roda_str mask, const char **ret_text)
{
    int there = ban_find(home, mask) < home->n_bans;

    if (!mask.len || mask.len > MASK_BYTES_MAX || memchr(mask.ptr, ' ', mask.len)) {
        *ret_text = "a ban is of a nick, or of a mask NICK@HOST";
        return RODA_E_ARGUMENT;
    }
    if (change->on == there) {
        *ret_text = there ? "that is banned already" : "there is no such ban";
        return RODA_E_ALREADY;
    }
    if (change->on && home->n_bans >= BANS_MAX) {
        *ret_text = "the room has as many bans as it may have";
        return RODA_E_FULL;
    }
    return change->on && bans_reserve(x, home) ? RODA_E_MEMORY : 0;
}

static uint32_t check_key(const struct home *home, const struct change *change, struct roda_str key,
                          const char **ret_text)
{
    if (!change->on)
        return home->key ? 0 : RODA_E_ALREADY;
    if (key.len && key.len <= KEY_BYTES_MAX && !memchr(key.ptr, ' ', key.len))
        return 0;
    *ret_text = "a key has 1 to 64 bytes and no spaces";
    return RODA_E_ARGUMENT;
}

uint32_t mode_check(struct roda_ctx *x, struct home *home, const struct home_member *actor,
                    const struct roda_msg *msg, const char **ret_text)
{
    struct change change;
    uint32_t bit;

    if (parse(msg, &change)) {
        *ret_text = "a mode is + or - and one of m i k t s o v b";
        return RODA_E_ARGUMENT;
    }
    if (actor && actor->rank < (change.letter == 'o' ? RODA_RANK_OWNER : RODA_RANK_OPERATOR)) {
        *ret_text = change.letter == 'o' ? "only the owner of the room may do that" : "";
        return RODA_E_RANK;
    }
    bit = bit_of(change.letter);
    if (change.letter == 'k')
        return check_key(home, &change, msg->subject, ret_text);
    if (bit)
        return change.on == !!(home->modes & bit) ? RODA_E_ALREADY : 0;
    if (change.letter == 'b')
        return check_ban(x, home, &change, msg->subject, ret_text);
    return check_rank(&change, mode_target(x, home, msg->subject, TARGET_BEHIND_LANE), actor,
                      ret_text);
}

/* ---- applying -------------------------------------------------------------------------------- */

static void apply_rank(struct roda_ctx *x, struct home *home, const struct change *change,
                       struct roda_str nick)
{
    struct home_member *target = mode_target(x, home, nick, TARGET_NOW);
    uint32_t rank = rank_of(change->letter);

    if (!target)
        return;
    if (change->on && target->rank < rank)
        target->rank = rank & 0xff;
    else if (!change->on && target->rank == rank)
        target->rank = RODA_RANK_NONE;
}

static uint32_t apply_ban(struct roda_ctx *x, struct home *home, const struct change *change,
                          struct roda_msg *msg)
{
    uint32_t place = ban_find(home, msg->subject);

    if (change->on && place == home->n_bans) {
        if (bans_reserve(x, home))
            return RODA_E_MEMORY;
        home->bans[home->n_bans++] = roda_msg_ref(msg);
    } else if (!change->on && place < home->n_bans) {
        roda_msg_unref(home->bans[place]);
        home->bans[place] = home->bans[--home->n_bans];
    }
    return 0;
}

uint32_t mode_apply(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    struct change change;

    if (parse(msg, &change))
        return 0;
    if (change.letter == 'b')
        return apply_ban(x, home, &change, msg);
    if (!bit_of(change.letter)) {
        apply_rank(x, home, &change, msg->subject);
        return 0;
    }
    if (change.letter == 'k') {
        roda_msg_unref(home->key);
        home->key = change.on ? roda_msg_ref(msg) : NULL;
    }
    home->modes = mode_bits(home->modes, msg);
    atomic_store_explicit(&home->room->modes, home->modes, memory_order_relaxed);
    return 0;
}
