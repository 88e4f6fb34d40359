<?php
// Asks LDAP as Nextcloud's user_ldap does at a login: the same requests in the same order, of the same extension of PHP, and the same
// answers to the same result codes. Usage: php nextcloud.php FILE, a JSON object of the settings by the names of `occ ldap:set-config`; the
// login and the password are two lines of standard input.
//
// It prints what checkPassword would return, and then the groups that the user would be in.
declare(strict_types=1);
error_reporting(E_ALL & ~E_WARNING); // a failed bind is one

final class ServerNotAvailable extends Exception {}

final class Connection {
	private ?LDAP\Connection $link = null;

	public function __construct(private array $set) {}

	// bind connects and binds. Every result but these two means that the server is not available.
	public function bind(string $dn, string $password): bool {
		$this->link = ldap_connect($this->set['ldapHost'] . ':' . $this->set['ldapPort']);
		ldap_set_option($this->link, LDAP_OPT_PROTOCOL_VERSION, 3);
		ldap_set_option($this->link, LDAP_OPT_REFERRALS, 0);
		ldap_set_option($this->link, LDAP_OPT_NETWORK_TIMEOUT, 15);
		if (!empty($this->set['ldapTLS']) && !ldap_start_tls($this->link)) {
			throw new ServerNotAvailable('start TLS');
		}
		if (@ldap_bind($this->link, $dn, $password)) {
			return true;
		}
		if (!in_array(ldap_errno($this->link), [0x00, 0x31], true)) {
			throw new ServerNotAvailable('bind: ' . ldap_error($this->link));
		}
		return false;
	}

	// search returns the entries of all pages below the base, or below each of several.
	public function search(string $base, string $filter, array $attributes): array {
		$found = [];
		for ($cookie = ''; ; ) {
			$controls = [['oid' => LDAP_CONTROL_PAGEDRESULTS, 'iscritical' => false, 'value' => ['size' => 500, 'cookie' => $cookie]]];
			$links = [$this->link];
			$results = @ldap_search($links, [$base], $filter, $attributes, 0, 0, -1, LDAP_DEREF_NEVER, $controls);
			$result = $results[0] ?? false;
			if ($result === false) {
				$this->complain();
				return [];
			}
			ldap_parse_result($this->link, $result, $code, $matched, $message, $referrals, $answered);
			$entries = ldap_get_entries($this->link, $result);
			for ($i = 0; $i < $entries['count']; $i++) {
				$found[] = $entries[$i];
			}
			$cookie = $answered[LDAP_CONTROL_PAGEDRESULTS]['value']['cookie'] ?? '';
			if ($cookie === '') {
				return $found;
			}
		}
	}

	// read returns the values of an attribute of one entry, false if there is none.
	public function read(string $dn, string $attribute, string $filter = 'objectClass=*'): array|false {
		$result = @ldap_read($this->link, $dn, $filter, [$attribute], 0, -1);
		if ($result === false) {
			$this->complain();
			return false;
		}
		$entry = ldap_first_entry($this->link, $result);
		if ($entry === false) {
			return false;
		}
		$values = array_change_key_case(ldap_get_attributes($this->link, $entry))[strtolower($attribute)] ?? ['count' => 0];
		unset($values['count']);
		return $values;
	}

	private function complain(): void {
		if (in_array(ldap_errno($this->link), [-1, 1, 48, 52], true)) {
			throw new ServerNotAvailable('search: ' . ldap_error($this->link));
		}
	}

	public function close(): void {
		if ($this->link !== null) {
			@ldap_unbind($this->link);
			$this->link = null;
		}
	}
}

function clean(string $dn): string {
	return strtolower(preg_replace('/([^\\\\]),(\s+)/u', '\1,', $dn));
}

function login(array $set, string $login, string $password): string {
	$agent = new Connection($set);
	$agent->bind($set['ldapAgentName'], $set['ldapAgentPassword']);
	$wanted = ['entryuuid', 'nsuniqueid', 'objectguid', 'guid', 'ipauniqueid', 'dn', 'uid', 'samaccountname', 'memberof', '', '',
		strtolower($set['ldapEmailAttribute']), strtolower($set['ldapUserDisplayName']), 'jpegphoto', 'thumbnailphoto'];
	$filter = str_replace('%uid', ldap_escape($login, '', LDAP_ESCAPE_FILTER), $set['ldapLoginFilter']);
	$users = $agent->search($set['ldapBaseUsers'], $filter, $wanted);
	if (count($users) < 1) {
		return 'false';
	}
	$dn = clean($users[0]['dn']);
	$uuid = $agent->read($dn, $set['ldapExpertUUIDUserAttr']);
	if (!$uuid) {
		return 'false, as it has no UUID';
	}
	$name = $agent->read($dn, $set['ldapExpertUsernameAttr'])[0] ?? $uuid[0];
	if ($agent->read($dn, '', $set['ldapUserFilter']) === false) {
		return 'false, as it is no user';
	}
	$user = new Connection($set);
	if ($password === '') {
		return 'false'; // such settings are refused, without asking
	}
	if (!$user->bind($dn, $password)) {
		return 'false';
	}
	$user->close();
	$groups = [];
	foreach ($agent->read($dn, 'memberof') ?: [] as $group) {
		if ($cn = $agent->read(clean($group), $set['ldapGroupDisplayName'], $set['ldapGroupFilter'])) {
			$groups[] = $cn[0];
		}
	}
	$member = $set['ldapGroupMemberAssocAttr'] . '=' . ldap_escape($dn, '', LDAP_ESCAPE_FILTER);
	$searched = [];
	foreach ($agent->search($set['ldapBaseGroups'], "(&{$set['ldapGroupFilter']}($member))", [strtolower($set['ldapGroupDisplayName']), 'dn']) as $group) {
		$searched[] = $group['cn'][0];
	}
	$agent->close();
	sort($groups);
	sort($searched);
	return "$name\nmemberOf: " . implode(' ', $groups) . "\nmember: " . implode(' ', $searched);
}

$set = json_decode(file_get_contents($argv[1]), true, 4, JSON_THROW_ON_ERROR);
try {
	echo login($set, rtrim(fgets(STDIN), "\n"), rtrim(fgets(STDIN), "\n")), "\n";
} catch (ServerNotAvailable $e) {
	echo "ServerNotAvailableException\n";
}
