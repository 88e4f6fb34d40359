# Runs the page's function with Net::LDAP, or asks what the function does not.
use Net::LDAP::Control::Paged;
use Net::LDAP::Constant qw(LDAP_CONTROL_PAGED LDAP_COMPARE_TRUE LDAP_COMPARE_FALSE);
use Net::LDAP::Extension::WhoAmI;

if ($ARGV[0] eq 'login') {
    chomp(my ($name, $password) = <STDIN>);
    my $login = eval { login($name, $password) };
    print $@ ? $@ : defined $login ? "login $login\n" : "undef\n";
    exit;
}

(my $base = $people) =~ s/^[^,]*,//;
sub group { return "cn=$_[0],ou=groups,$base" }
sub names { my ($found, $attribute) = @_; return join ' ', sort map { $_->get_value($attribute) } $found->entries }
sub compared { return { LDAP_COMPARE_TRUE() => 'True', LDAP_COMPARE_FALSE() => 'False' }->{ $_[0]->code } }

my $c = connection();
checked($c->bind($reader, password => $secret));
my $user = "uid=check-1,$people";
print 'who am I: ', checked($c->who_am_i)->response, "\n";

my $page = Net::LDAP::Control::Paged->new(size => $ARGV[1], critical => 1);
my ($pages, $entries) = (0, 0);
while (1) {
    my $part = checked($c->search(base => $people, filter => '(mail=check-*)', attrs => ['uid'], control => [$page]));
    $entries += $part->count;
    $pages++;
    my ($answer) = $part->control(LDAP_CONTROL_PAGED) or die 'no control';
    last unless length $answer->cookie;
    $page->cookie($answer->cookie);
}
print "pages: $pages of $entries entries\n";
my $staff = group('staff');
print 'by memberOf: ', names(checked($c->search(base => $people, filter => "(&(mail=check-*)(memberOf=$staff))", attrs => ['uid'])), 'uid'), "\n";
print 'by member: ', names(checked($c->search(base => $base, filter => "(&(objectClass=groupOfNames)(member=$user))", attrs => ['cn'])), 'cn'), "\n";
print 'compare: ', compared($c->compare($staff, attr => 'member', value => $user)), ' ',
    compared($c->compare($staff, attr => 'member', value => "uid=check-2,$people")), "\n";
print 'no entry: ', $c->search(base => "uid=nobody,$people", scope => 'base', filter => '(objectClass=*)')->code, "\n";
print 'wrong password: ', connection()->bind($user, password => 'abcd-efgh-ijkl-mnop')->code, "\n";

# bind sends no empty password but where it is told to.
print 'empty password: ', connection()->bind($user, password => '')->code, ', ', connection()->bind($user, noauth => 1)->code, "\n";
