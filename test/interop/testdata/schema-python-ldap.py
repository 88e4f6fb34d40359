# python3-ldap (libldap) parses the schema itself and walks it.
import os

import ldap
import ldap.schema
from ldap.controls import SimplePagedResultsControl
from ldap.schema.models import AttributeType, LDAPSyntax, MatchingRule, MatchingRuleUse, ObjectClass

base, user, password = os.environ["BASE"], os.environ["DN"], os.environ["SECRET"]
url = "ldap://" + os.environ["ADDR"]
name, schema = ldap.schema.urlfetch(url + "/")  # anonymous
assert name == "cn=Subschema", name

l = ldap.initialize(url)
l.simple_bind_s(user, password)
assert l.search_subschemasubentry_s(user) == "cn=Subschema"
for kind, least in ((AttributeType, 90), (ObjectClass, 15), (LDAPSyntax, 10), (MatchingRule, 15), (MatchingRuleUse, 3)):
    assert len(schema.listall(kind)) >= least, kind
for oid in schema.listall(ObjectClass):
    o = schema.get_obj(ObjectClass, oid)
    for a in o.must + o.may:
        assert schema.get_obj(AttributeType, a), "class %s names %s" % (o.names, a)
    for sup in o.sup:
        assert schema.get_obj(ObjectClass, sup), sup
for oid in schema.listall(AttributeType):
    a = schema.get_obj(AttributeType, oid)
    assert schema.get_obj(LDAPSyntax, a.syntax), a.names
    for rule in filter(None, (a.equality, a.ordering, a.substr)):
        assert schema.get_obj(MatchingRule, rule), rule
for oid in schema.listall(MatchingRuleUse):
    for a in schema.get_obj(MatchingRuleUse, oid).applies:
        assert schema.get_obj(AttributeType, a), a
must, may = schema.attribute_types(["inetOrgPerson", "posixAccount"])
assert schema.getoid(AttributeType, "sn") in must and schema.getoid(AttributeType, "memberOf") in may, (must, may)

found, attributes = l.search_s(user, ldap.SCOPE_BASE, attrlist=["*", "+"])[0]
classes = [c.decode() for c in attributes["objectClass"]]
must, may = schema.attribute_types(classes)
for a in must.values():
    assert any(n in attributes for n in a.names), "the entry has no %s" % (a.names,)
for a in attributes:
    t = schema.get_obj(AttributeType, a)
    assert t, a
    assert len(attributes[a]) == 1 or not t.single_value, a
    assert t.usage != 0 or schema.getoid(AttributeType, a) in list(must) + list(may), "%s is not allowed by %s" % (a, classes)

control = SimplePagedResultsControl(True, size=2, cookie="")
entries, pages = [], 0
while True:
    reply = l.search_ext(base, ldap.SCOPE_SUBTREE, "(objectClass=*)", ["1.1"], serverctrls=[control])
    _, data, _, controls = l.result3(reply)
    entries += data
    pages += 1
    cookie = [c for c in controls if c.controlType == SimplePagedResultsControl.controlType][0].cookie
    if not cookie:
        break
    control.cookie = cookie
assert (len(entries), pages) == (4, 2), (entries, pages)
assert l.compare_s(user, "uidNumber", b"1001")
assert l.whoami_s() == "dn:" + user
