# Runs the page's function with python-ldap, or asks what the function does not.
import sys

import ldap
from ldap.controls import SimplePagedResultsControl

sys.path.insert(0, sys.argv[1])
import page  # noqa: E402

BASE = page.PEOPLE.partition(",")[2]


def group(name):
    return "cn=%s,ou=groups,%s" % (name, BASE)


def names(found, attribute="uid"):
    return " ".join(sorted(a[attribute][0].decode() for _, a in found))


def code(ask):
    try:
        ask()
    except ldap.LDAPError as e:
        return e.args[0]["result"]
    return 0


def paged(c):
    control, found, pages = SimplePagedResultsControl(True, size=int(sys.argv[3]), cookie=""), [], 0
    while True:
        reply = c.search_ext(page.PEOPLE, ldap.SCOPE_SUBTREE, "(mail=check-*)", ["uid"], serverctrls=[control])
        _, data, _, controls = c.result3(reply)
        found, pages, control.cookie = found + data, pages + 1, controls[0].cookie
        if not control.cookie:
            return "%d of %d entries" % (pages, len(found))


if sys.argv[2] == "login":
    name, password = sys.stdin.read().split("\n")[:2]
    try:
        login = page.login(name, password)
        print("None" if login is None else "login " + login)
    except ldap.LDAPError as e:
        print("ldap." + type(e).__name__)
else:
    c = page.connect(page.READER, page.SECRET)
    user = "uid=check-1," + page.PEOPLE
    print("who am I:", c.whoami_s())
    print("pages:", paged(c))
    print("by memberOf:", names(c.search_s(page.PEOPLE, ldap.SCOPE_SUBTREE, "(&(mail=check-*)(memberOf=%s))" % group("staff"), ["uid"])))
    print("by member:", names(c.search_s(BASE, ldap.SCOPE_SUBTREE, "(&(objectClass=groupOfNames)(member=%s))" % user, ["cn"]), "cn"))
    print("compare:", c.compare_s(group("staff"), "member", user.encode()), c.compare_s(group("staff"), "member", b"uid=check-2," + page.PEOPLE.encode()))
    print("no entry:", code(lambda: c.search_s("uid=nobody," + page.PEOPLE, ldap.SCOPE_BASE)))
    print("wrong password:", code(lambda: page.connect(user, "abcd-efgh-ijkl-mnop")))
    print("empty password:", code(lambda: page.connect(user, "")))
