# Runs the page's function with ldap3, or asks what the function does not. ldap3 checks names against the schema that it reads with each bind.
import sys

import ldap3
from ldap3.core.exceptions import LDAPException, LDAPOperationResult

sys.path.insert(0, sys.argv[1])
import page  # noqa: E402

BASE = page.PEOPLE.partition(",")[2]


def group(name):
    return "cn=%s,ou=groups,%s" % (name, BASE)


def names(found, attribute="uid"):
    return " ".join(sorted(e["attributes"][attribute][0] for e in found))


def search(c, base, who, attribute):
    c.search(base, who, attributes=[attribute])
    return names(c.response, attribute)


def code(ask):
    try:
        ask()
    except LDAPOperationResult as e:
        return e.result
    return 0


def paged(c):
    pages, found, cookie = 0, [], None
    while True:
        c.search(page.PEOPLE, "(mail=check-*)", attributes=["uid"], paged_size=int(sys.argv[3]), paged_cookie=cookie, paged_criticality=True)
        pages, found = pages + 1, found + c.response
        cookie = c.result["controls"]["1.2.840.113556.1.4.319"]["value"]["cookie"]
        if not cookie:
            return "%d of %d entries" % (pages, len(found))


if sys.argv[2] == "login":
    name, password = sys.stdin.read().split("\n")[:2]
    try:
        login = page.login(name, password)
        print("None" if login is None else "login " + login)
    except LDAPException as e:
        print(type(e).__name__)
else:
    c = page.connect(page.READER, page.SECRET)
    assert c.server.schema, "no schema"
    user = "uid=check-1," + page.PEOPLE
    print("who am I:", c.extend.standard.who_am_i())
    print("pages:", paged(c))
    print("by memberOf:", search(c, page.PEOPLE, "(&(mail=check-*)(memberOf=%s))" % group("staff"), "uid"))
    print("by member:", search(c, BASE, "(&(objectClass=groupOfNames)(member=%s))" % user, "cn"))
    print("compare:", c.compare(group("staff"), "member", user), c.compare(group("staff"), "member", "uid=check-2," + page.PEOPLE))
    print("no entry:", code(lambda: c.search("uid=nobody," + page.PEOPLE, "(objectClass=*)", ldap3.BASE)))
    print("wrong password:", code(lambda: page.connect(user, "abcd-efgh-ijkl-mnop")))
    try:
        page.connect(user, "")
    except LDAPException as e:
        print("empty password:", type(e).__name__)
