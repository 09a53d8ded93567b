#include "flood.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "plugins/ratelimit/address.h"

/* Prefixes of addresses. */

static struct testhost *host; /* hashes have its key */

static int setup(void **state)
{
    (void)state;
    host = flood_start(1, "");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    flood_stop(host);
    return 0;
}

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

static struct network parsed(const char *text)
{
    struct network network;
    const char *wrong = network_parse(str(text), &network);

    if (wrong)
        fail_msg("%s: %s", text, wrong);
    return network;
}

static struct network peer(const char *address, uint32_t bits_ipv4, uint32_t bits_ipv6)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(4711)};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons(4711)};
    struct network network;
    int is_ipv4 = inet_pton(AF_INET, address, &ipv4.sin_addr) == 1;

    assert_true(is_ipv4 || inet_pton(AF_INET6, address, &ipv6.sin6_addr) == 1);
    assert_int_equal(network_of(is_ipv4 ? (const struct sockaddr *)&ipv4
                                        : (const struct sockaddr *)&ipv6,
                                bits_ipv4, bits_ipv6, &network),
                     1);
    return network;
}

static void reads(const char *text, const char *wanted)
{
    struct network network = parsed(text), again;
    char buf[NETWORK_TEXT_BYTES];

    assert_string_equal(network_text(&network, buf), wanted);
    again = parsed(buf);
    assert_memory_equal(again.address, network.address, 16);
    assert_int_equal(again.bits, network.bits);
}

static void networks_are_read_and_written(void **state)
{
    (void)state;
    reads("192.0.2.0/24", "192.0.2.0/24");
    reads("192.0.2.7", "192.0.2.7/32");
    reads("0.0.0.0/0", "0.0.0.0/0");
    reads("::1", "::1/128");
    reads("2001:db8::/32", "2001:db8::/32");
    reads("::/0", "::/0");
    reads("::ffff:192.0.2.0/120", "192.0.2.0/24");
}

static void what_is_no_network_is_refused(void **state)
{
    static const char *const wrong[] =
        {"",
         "lobby",
         "192.0.2",
         "192.0.2.0/33",
         "192.0.2.0/",
         "1.2.3.4/x",
         "192.0.2.1/24",
         "2001:db8::1/64",
         "::/129",
         "::1/-1",
         "::/999999999999",
         "1.2.3.4/ 8",
         "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee"};
    struct network network;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        if (!network_parse(str(wrong[i]), &network))
            fail_msg("\"%s\" was taken", wrong[i]);
}

static void a_prefix_is_one_client(void **state)
{
    struct network a = peer("2001:db8:1:2::1", 32, 64), b = peer("2001:db8:1:2:ffff:1:2:3", 32, 64);
    struct network other = peer("2001:db8:1:3::1", 32, 64);
    struct network c = peer("192.0.2.7", 24, 64), d = peer("192.0.2.200", 24, 64);
    struct network e = peer("192.0.3.7", 24, 64);

    (void)state;
    assert_true(network_key(&a) == network_key(&b));
    assert_true(network_key(&a) != network_key(&other));
    assert_true(network_key(&c) == network_key(&d));
    assert_true(network_key(&c) != network_key(&e));
    assert_int_not_equal(network_key(&c), 0);
}

static void a_mapped_address_is_the_ipv4_address(void **state)
{
    struct network a = peer("192.0.2.7", 32, 64), b = peer("::ffff:192.0.2.7", 32, 64);
    struct network c = peer("::ffff:192.0.2.8", 32, 64);

    (void)state;
    assert_true(network_key(&a) == network_key(&b));
    assert_true(network_key(&a) != network_key(&c));
}

static void networks_contain_addresses(void **state)
{
    struct network loopback = parsed("127.0.0.0/8"), any = parsed("::/0"), one = parsed("::1");
    struct network a = peer("127.9.8.7", 32, 128), b = peer("::ffff:127.0.0.1", 32, 128);
    struct network c = peer("128.0.0.1", 32, 128), d = peer("::1", 32, 128);

    (void)state;
    assert_true(network_contains(&loopback, &a));
    assert_true(network_contains(&loopback, &b));
    assert_false(network_contains(&loopback, &c));
    assert_false(network_contains(&loopback, &d));
    assert_true(network_contains(&one, &d));
    assert_true(network_contains(&any, &c));
    assert_false(network_contains(&one, &any));
}

static void a_unix_peer_has_no_address(void **state)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct network network;

    (void)state;
    assert_int_equal(network_of((const struct sockaddr *)&local, 32, 64, &network), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_are_read_and_written),
        cmocka_unit_test(what_is_no_network_is_refused),
        cmocka_unit_test(a_prefix_is_one_client),
        cmocka_unit_test(a_mapped_address_is_the_ipv4_address),
        cmocka_unit_test(networks_contain_addresses),
        cmocka_unit_test(a_unix_peer_has_no_address),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
