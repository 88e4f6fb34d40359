# Perl's Net::LDAP parses the schema with a grammar of its own.
use strict;
use warnings;
use Net::LDAP;
use Net::LDAP::Control::Paged;
use Net::LDAP::Constant qw(LDAP_CONTROL_PAGED);

my ($base, $user, $password) = @ENV{qw(BASE DN SECRET)};
my $l = Net::LDAP->new("ldap://$ENV{ADDR}", onerror => 'die') or die $@;
$l->bind($user, password => $password);
my $schema = $l->schema or die "no schema";
die $schema->error if $schema->error;

die "too few attributes" if scalar($schema->all_attributes) < 90;
for my $class ($schema->all_objectclasses) {
	for my $a ($schema->must($class->{name}), $schema->may($class->{name})) {
		die "class $class->{name} names an attribute that is not there" unless $a && $schema->attribute($a->{name});
	}
	for my $sup (@{ $class->{sup} || [] }) { die "no $sup" unless $schema->objectclass($sup) }
}
for my $a ($schema->all_attributes) {
	die "$a->{name} has no syntax" unless $schema->attribute_syntax($a->{name});
	for my $rule (grep { defined } @{$a}{qw(equality ordering substr)}) { die "no $rule" unless $schema->matchingrule($rule) }
}
for my $name (qw(memberOf entryUUID surname rfc822Mailbox attributeTypes uidNumber)) { die "no $name" unless $schema->attribute($name) }
die "not single-valued" unless $schema->attribute('uidNumber')->{'single-value'};

my $found = $l->search(base => $base, filter => '(&(objectClass=inetOrgPerson)(uid=alice))', attrs => ['*', '+']);
die "found " . $found->count unless $found->count == 1;
for my $name ($found->entry(0)->attributes) { die "$name is not in the schema" unless $schema->attribute($name) }

my $page = Net::LDAP::Control::Paged->new(size => 3, critical => 1);
my ($entries, $pages) = (0, 0);
while (1) {
	my $r = $l->search(base => $base, filter => '(objectClass=*)', control => [$page]);
	$entries += $r->count;
	$pages++;
	my ($answer) = $r->control(LDAP_CONTROL_PAGED) or die "no control";
	last unless length $answer->cookie;
	$page->cookie($answer->cookie);
}
die "$entries entries in $pages pages" unless $entries == 4 && $pages == 2;
die "compare" unless $l->compare($user, attr => 'mail', value => 'Alice@Example.Org')->code == 6;
$l->unbind;
