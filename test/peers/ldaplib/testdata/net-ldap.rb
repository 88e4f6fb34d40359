# Runs the page's function with net-ldap, or asks what the function does not. It has neither compare nor
# WhoAmI, and asks for pages of 126 by itself.
require File.join(ARGV[0], "page")

def names(found, attribute)
  found.map { |e| e[attribute].first }.sort.join(" ")
end

if ARGV[1] == "login"
  name, password = STDIN.read.split("\n", -1)
  begin
    login = login(name, password)
    puts login ? "login #{login}" : "nil"
  rescue StandardError => e
    puts e.instance_of?(RuntimeError) ? e.message : e.class
  end
else
  base = PEOPLE.split(",", 2).last
  user = "uid=check-1,#{PEOPLE}"
  c = connection
  puts "entries: #{c.search(filter: Net::LDAP::Filter.begins("mail", "check-"), attributes: ["uid"]).length}"
  staff = "cn=staff,ou=groups,#{base}"
  puts "by memberOf: " + names(c.search(filter: Net::LDAP::Filter.construct("(&(mail=check-*)(memberOf=#{staff}))")), :uid)
  puts "by member: " + names(c.search(base: base, filter: Net::LDAP::Filter.construct("(&(objectClass=groupOfNames)(member=#{user}))")), :cn)
  c.search(base: "uid=nobody,#{PEOPLE}", scope: Net::LDAP::SearchScope_BaseObject)
  puts "no entry: #{c.get_operation_result.code}"
  c.bind(method: :simple, username: user, password: "abcd-efgh-ijkl-mnop")
  puts "wrong password: #{c.get_operation_result.code}"
  c.bind(method: :simple, username: user, password: "")
  puts "empty password: #{c.get_operation_result.code}"
end
