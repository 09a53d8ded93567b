#include "grammar.h"

#include <string.h>

/*
 * The commands: what the parser reads and what /help shows come from one table, so that neither
 * can know a command that the other does not. docs/line-protocol.md is held equal to it by a test.
 */

#define ROOM   LINE_ARGUMENT_ROOM
#define MARKED LINE_ARGUMENT_MARKED
#define NAME   LINE_ARGUMENT_NAME
#define TEXT   LINE_ARGUMENT_TEXT

const struct line_syntax line_syntaxes[] = {
    {"nick",
     LINE_NICK,
     1,
     {NAME},
     "NAME",
     "take another name",
     "at most 32 bytes: letters, digits and _ - [ ] \\ ^ { } | `, with no digit, - or [ first\n"
     "answer: * you are NAME now\n"},
    {"join",
     LINE_JOIN,
     1,
     {ROOM, NAME},
     "ROOM [KEY]",
     "enter a room and make it the current one",
     "a room that is not there is made; a # in front of its name is dropped\n"
     "answer: * you are NAME in ROOM: N people, last message NUMBER\n"},
    {"part",
     LINE_PART,
     0,
     {ROOM, TEXT},
     "[ROOM [REASON]]",
     "leave a room, or the current one",
     "if it was the current room, the one joined last before it becomes current\n"
     "answer: * you left ROOM\n"},
    {"room",
     LINE_ROOM,
     0,
     {ROOM},
     "[ROOM]",
     "make another of your rooms the current one",
     "without ROOM: tells which rooms you are in, the current one first\n"
     "answer: * you talk in ROOM, or * you are in ROOM, ROOM\n"},
    {"msg",
     LINE_MSG,
     3,
     {NAME, TEXT},
     "NICK|#ROOM TEXT",
     "say something to one person, or to another of your rooms",
     "the person sees: @ YOU: TEXT\n"},
    {"me", LINE_ME, 1, {TEXT}, "TEXT", "say what you do", "others see: ROOM * YOU TEXT\n"},
    {"who",
     LINE_WHO,
     0,
     {ROOM},
     "[ROOM]",
     "list the people in a room",
     "answer: one line * who ROOM NICK each, then * who ROOM: N people\n"
     "behind the nick: owner, operator or voice, the protocol, and why they are away\n"},
    {"rooms",
     LINE_ROOMS,
     0,
     {0},
     "",
     "list the rooms",
     "answer: one line * room ROOM: N people, last message NUMBER each, then * rooms: N\n"},
    {"topic",
     LINE_TOPIC,
     0,
     {MARKED, TEXT},
     "[#ROOM] [TEXT]",
     "show or set the topic of a room",
     "the topic - (one dash) takes it away\n"
     "answer: * topic of ROOM: TEXT, or * you set the topic of ROOM: TEXT\n"},
    {"history",
     LINE_HISTORY,
     0,
     {TEXT},
     "[ROOM] [N|FROM-TO|since NUMBER], at most 300",
     "show what was said: the last N (20), from one number to another, or after one",
     "answer: lines as they were, TIME in front, then * history ROOM FROM-TO: N messages\n"
     "of numbers that are not kept: * history ROOM FROM-TO: not kept\n"
     "at most 300 messages at once; the last line says how to go on\n"},
    {"numbers",
     LINE_NUMBERS,
     1,
     {NAME},
     "on|off",
     "show the number of each message, or not",
     "on: NUMBER ROOM NICK: TEXT, and your own messages are answered * NUMBER ROOM\n"
     "a number left out in a room means that a message was lost on its way to you\n"},
    {"ping",
     LINE_PING,
     0,
     {NAME},
     "[TOKEN]",
     "ask for an answer",
     "answer: * pong ROOM NUMBER [TOKEN], the last number of the current room\n"
     "it comes after everything you sent before it was published or refused\n"},
    {"away",
     LINE_AWAY,
     0,
     {TEXT},
     "[TEXT]",
     "say that you are away, or back",
     "answer: * you are away: TEXT, or * you are back\n"},
    {"kick", LINE_KICK, 2, {MARKED, NAME, TEXT}, "[#ROOM] NICK [REASON]", "put somebody out", ""},
    {"op", LINE_OP, 2, {MARKED, NAME}, "[#ROOM] NICK", "make somebody an operator", ""},
    {"deop", LINE_DEOP, 2, {MARKED, NAME}, "[#ROOM] NICK", "take that back", ""},
    {"voice",
     LINE_VOICE,
     2,
     {MARKED, NAME},
     "[#ROOM] NICK",
     "let somebody talk in a moderated room",
     ""},
    {"devoice", LINE_DEVOICE, 2, {MARKED, NAME}, "[#ROOM] NICK", "take that back", ""},
    {"ban", LINE_BAN, 2, {MARKED, NAME}, "[#ROOM] NICK|MASK", "keep somebody out", ""},
    {"unban", LINE_UNBAN, 2, {MARKED, NAME}, "[#ROOM] NICK|MASK", "take that back", ""},
    {"mode",
     LINE_MODE,
     0,
     {MARKED, NAME, TEXT},
     "[#ROOM] [CHANGE [ARGUMENT]]",
     "show or change what a room is like",
     "+m only voices talk, +i invitation only, +k KEY key needed, +t operators set the topic,\n"
     "+s not listed; with - in place of + no longer\n"
     "answer: * mode of ROOM: WORDS, or * you set CHANGE in ROOM\n"},
    {"invite",
     LINE_INVITE,
     1,
     {NAME, ROOM},
     "NICK [ROOM]",
     "ask somebody into a room",
     "answer: * you invited NICK to ROOM\n"},
    {"quit",
     LINE_QUIT,
     0,
     {TEXT},
     "[REASON]",
     "leave",
     "answer: * goodbye, after everything you sent was published\n"},
    {"help", LINE_HELP, 0, {NAME}, "[COMMAND]", "this list, or more about one command", ""},
    {.word = NULL},
};

static int equals_ignoring_case(struct roda_str word, const char *wanted)
{
    size_t i;

    for (i = 0; i < word.len && wanted[i]; i++) {
        char c = word.ptr[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c != wanted[i])
            return 0;
    }
    return i == word.len && !wanted[i];
}

const struct line_syntax *line_syntax_find(struct roda_str word)
{
    for (const struct line_syntax *syntax = line_syntaxes; syntax->word; syntax++)
        if (equals_ignoring_case(word, syntax->word))
            return syntax;
    return NULL;
}
