# python3-ldap3 reads the schema when it binds, and refuses names that it does not find there before it asks.
import os
import sys

import ldap3
from ldap3.core.exceptions import LDAPAttributeError, LDAPObjectClassError

host, port = os.environ["ADDR"].rsplit(":", 1)
base, user, password = os.environ["BASE"], os.environ["DN"], os.environ["SECRET"]
server = ldap3.Server(host, int(port), get_info=ldap3.SCHEMA)
c = ldap3.Connection(server, user, password, auto_bind=True)
schema = server.schema
assert schema is not None, "no schema"

every = sorted(schema.attribute_types.keys())
assert c.search(base, "(&(objectClass=person)(uid=alice))", attributes=every), c.result
assert [e.entry_dn for e in c.entries] == [user], c.entries
e = c.entries[0]
assert e.uid.value == "alice" and e.uidNumber.value == 1001 and e.memberOf.values == [], e
assert e.entryUUID.value and e.hasSubordinates.value is False and e.createTimestamp.value.year >= 2024, e

# What programs look for, whether an entry has it or not.
common = """memberOf entryUUID uidNumber gidNumber homeDirectory loginShell shadowLastChange shadowExpire krbPrincipalName mail rfc822Mailbox
    displayName givenName surname jpegPhoto member uniqueMember memberUid modifyTimestamp sshPublicKey userPassword preferredLanguage""".split()
assert c.search(base, "(|" + "".join("(%s=*)" % a for a in common) + ")", attributes=common), c.result
for kind in "posixAccount shadowAccount inetOrgPerson groupOfNames groupOfUniqueNames posixGroup organizationalUnit".split():
    c.search(base, "(objectClass=%s)" % kind)
    assert c.result["result"] == 0, c.result
assert c.search(base, "(uid=alice)", attributes=[ldap3.ALL_ATTRIBUTES, ldap3.ALL_OPERATIONAL_ATTRIBUTES]), c.result
assert not {a for a in c.entries[0].entry_attributes if a not in schema.attribute_types}, c.entries[0]
for o in c.entries[0].objectClass.values:
    assert o in schema.object_classes, o

for bad, error in (("(nonsense=1)", LDAPAttributeError), ("(objectClass=nonsense)", LDAPObjectClassError)):
    try:
        c.search(base, bad)
        sys.exit("%s was not refused: the client does not check" % bad)
    except error:
        pass

pages = list(c.extend.standard.paged_search(base, "(objectClass=*)", paged_size=1, paged_criticality=True, generator=True))
assert len(pages) == 4, pages  # suffix, two containers, own entry
assert c.compare(user, "mail", "ALICE@example.org"), c.result
assert c.extend.standard.who_am_i() == "dn:" + user
c.unbind()
